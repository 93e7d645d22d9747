"""The statements' files: complete headers, parameters that the text uses, and no statement that nobody uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import backfill
from backfill import ConfigurationError
from backfill.storage.schema.steps import migrations
from backfill.storage.statements import load, quoted_schema, render

STORAGE = Path(backfill.__file__).parent / "storage"
NAMES = sorted(path.stem for path in (STORAGE / "sql").glob("*.sql"))
INDEXES = {
    "jobs_main_index", "jobs_no_queue_index", "jobs_pkey1", "jobs_key_key1", "tasks_pkey", "tasks_identifier_key",
    "job_queues_pkey1", "job_queues_queue_name_key", "backfill_workers_pkey", "backfill_jobs_serial_scan",
    "backfill_jobs_serial_head", "backfill_jobs_locked",
    "backfill_jobs_limited", "backfill_shares_newest", "backfill_shares_job",
    "backfill_jobs_exhausted", "backfill_jobs_stuck",
    "backfill_dlq_pkey", "backfill_dlq_key", "backfill_dlq_newest", "backfill_dlq_task", "backfill_ends_job",
    "backfill_ends_newest", "backfill_counters_pkey", "backfill_attempts_pkey", "backfill_dlq_job",
    "backfill_reservations_pkey", "backfill_reservations_reserved_until_idx",
    "backfill_progress_pkey",
    "backfill_limits_pkey", "backfill_limit_states_newest",
    "known_crontabs_pkey", "backfill_crontabs_pkey", "backfill_schedule_jobs_pkey",
    "pg_class_relname_nsp_index", "pg_namespace_nspname_index",
}  # fmt: skip
_LANES = {
    "claim", "claim_parallel", "claim_tied", "claim_parallel_tied",
    "lock_near_queues", "lock_beyond_queues", "lock_known_queues", "lock_far_queues", "hold_window",
    "hold_window_tied",
    "take_values",
}  # fmt: skip


def _body(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("-- "))


@pytest.mark.parametrize("name", NAMES)
def test_headers_are_complete(name: str) -> None:
    """Each says what it does, which rows it locks, which of our indexes serves it, and its parameters in order."""
    statement = load(name)
    assert statement.does.endswith(".")
    assert statement.locks
    assert set(statement.indexes) <= INDEXES
    assert statement.indexes or re.fullmatch(r"none: \w.*", statement.index)
    declared = re.findall(r"\$(\d+)", statement.text.split("-- params:")[1].split("\n--  ")[0].split("\n")[0])
    assert [int(number) for number in declared] == list(range(1, len(declared) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_text(name: str) -> None:
    """Every parameter of the header is used, and none that it lacks."""
    statement = load(name)
    used = {int(number) for number in re.findall(r"\$(\d+)", _body(load(name).text))}
    assert used == set(range(1, len(statement.params) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_statements_are_used(name: str) -> None:
    """Some module asks for it by name."""
    sources = [path.read_text() for path in STORAGE.parent.rglob("*.py")]
    assert any(f'"{name}"' in source for source in sources)


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_a_token(name: str) -> None:
    """No file names a schema of its own, and none is left when it is rendered."""
    text = load(name).text
    assert "graphile_worker" not in text
    assert ':"schema"' not in render(name, "other")
    for table in re.findall(r"(?:from|join|into|update|table)\s+(\S*(?:_private_|backfill_)\w+)", _body(text)):
        assert table.startswith(':"schema".'), table


@pytest.mark.parametrize("name", sorted(_LANES))
def test_lane_markers_stand_where_the_lane_goes(name: str) -> None:
    """The statements of claims, and only they, have a place for the lane."""
    marked = {other for other in NAMES if "-- lane: " in load(other).text}
    assert name in marked
    assert marked == _LANES


def test_migrations_are_numbered_and_headed() -> None:
    """Every migration's header is read, and one that is not for a transaction names its index."""
    for migration in migrations():
        assert migration.does.endswith(".")
        assert migration.transaction is (migration.index is None)
        assert migration.transaction is ("concurrently" not in migration.text)
        assert "graphile_worker" not in migration.text


@pytest.mark.parametrize("schema", ["", "a" * 64, "é" * 32, "nul\0", "\ud800"])
def test_schemas_that_postgresql_would_change_are_refused(schema: str) -> None:
    """A name that would be cut off, or cannot be sent, is refused by name."""
    with pytest.raises(ConfigurationError, match="schema = "):
        quoted_schema(schema)


@pytest.mark.parametrize(("schema", "quoted"), [("a", '"a"'), ('we"ird', '"we""ird"'), (':"schema"', '":""schema"""')])
def test_schemas_are_quoted_by_the_driver(schema: str, quoted: str) -> None:
    """Quotes in a name cannot end it, and a name that looks like the token is a name."""
    assert quoted_schema(schema) == quoted
    assert quoted in render("get_job", schema)


def test_an_unknown_statement_is_named() -> None:
    """A wrong name is an error that names it."""
    with pytest.raises(ConfigurationError, match="'no_such'"):
        load("no_such")
