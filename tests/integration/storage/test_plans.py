"""Every statement's plan on filled tables uses the indexes that its header names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import backfill
from backfill.storage.carried import carried
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.statements import load, render
from plans import (
    CALLS,
    CARRIED,
    FILL,
    FRONTS,
    HOT,
    PARALLEL,
    SAMPLES,
    TABLES,
    WAITING,
    Connection,
    explain,
    explain_hot,
    header_indexes,
    indexes,
    nodes,
    whole_scans,
)
from plans_reserving import FILL as RESERVATIONS
from plans_windows import LOOKS

NAMES = sorted(path.stem for path in (Path(backfill.__file__).parent / "storage" / "sql").glob("*.sql"))
TASKS = {f"task{n}": n for n in range(1, 501)}
LANES = {
    "all tasks": (LaneFilter(tasks=tuple(TASKS)),),
    "some tasks": (LaneFilter(tasks=("task1", "task2", "task3")),),
    "behind another": (LaneFilter(tasks=("task4",)), LaneFilter(tasks=tuple(TASKS))),
    "one priority": (LaneFilter(tasks=tuple(TASKS), priority=(0, 0)),),
    "accepted flags": (LaneFilter(tasks=tuple(TASKS)),),
}
FLAGS = {"accepted flags": ("gpu",)}
"""The flags of a lane of a worker that was told which ones it accepts."""


@pytest.fixture(scope="module")
def filled_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database with 240,000 jobs, most of them of one run_at, 2,000 queues and 2,000 workers."""
    name = f"{migrated_template}_filled"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'create database "{name}" template "{migrated_template}"'))
    dsn = make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute(RESERVATIONS)
        for table in TABLES:
            connection.execute(cast("LiteralString", f"vacuum analyze graphile_worker.{table}"))
    yield dsn
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'drop database "{name}" with (force)'))


@pytest.fixture
def filled(filled_dsn: str) -> Iterator[Connection]:
    """A transaction in that database, rolled back at the end."""
    with psycopg.connect(filled_dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(render("make_waiting"))
        connection.execute(WAITING)
        yield connection
        connection.rollback()


def test_each_statement_is_looked_at() -> None:
    """A statement whose header names an index has sample parameters here, or is a claim's."""
    assert {name for name in NAMES if header_indexes(name)} <= SAMPLES.keys() | FRONTS.keys()


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - set(CALLS) - {"bulk_begin"}))
def test_a_plan_uses_the_indexes_of_its_header(filled: Connection, name: str) -> None:
    """The indexes that the header names serve it, and no table of size is read from end to end."""
    plan = explain(filled, name, SAMPLES[name])
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()


@pytest.mark.parametrize("name", CARRIED)
def test_the_form_for_other_drivers_goes_by_the_same_indexes(filled: Connection, name: str) -> None:
    """What a client runs on a connection of another library, with all parameters as texts, is planned alike."""
    plan = explain(filled, name, SAMPLES[name], carried(name, "graphile_worker", "numeric").text)
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()


def test_the_form_for_other_drivers_is_planned_as_well_on_empty_tables(dsn: str) -> None:
    """Where the server knows of no rows, texts as parameters lead it to no other index and no other scan."""
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        for name in CARRIED:
            own = explain(connection, name, SAMPLES[name])
            other = explain(connection, name, SAMPLES[name], carried(name, "graphile_worker", "numeric").text)
            assert indexes(other) >= indexes(own), name
            assert whole_scans(other) <= whole_scans(own), name


@pytest.mark.parametrize("name", HOT)
def test_a_hot_plan_uses_the_indexes_of_its_header(filled: Connection, name: str) -> None:
    """The one plan that a worker has for all parameters goes by the same indexes."""
    plan = explain_hot(filled, render(name), SAMPLES[name])
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()


@pytest.mark.parametrize("name", HOT)
def test_a_hot_plan_made_on_empty_tables_is_the_same(dsn: str, name: str) -> None:
    """A worker that starts before its first million jobs keeps a plan that is good for them."""
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        plan = explain_hot(connection, render(name), SAMPLES[name])
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()


@pytest.mark.parametrize("name", CALLS)
def test_functions_read_no_table_from_end_to_end(filled: Connection, name: str) -> None:
    """What the contract's functions do inside goes by indexes too."""
    query = "select coalesce(sum(seq_scan), 0) from pg_stat_xact_user_tables where relname in ('_private_jobs')"
    before = filled.execute(query).fetchone()
    filled.execute(render(name), SAMPLES[name])
    assert filled.execute(query).fetchone() == before
    assert indexes(explain(filled, name, SAMPLES[name])) >= header_indexes(name)


def _claim(lane: str, name: str) -> tuple[str, list[Any]]:
    claim = LaneClaim("graphile_worker", LANES[lane], accepted_flags=FLAGS.get(lane, ()))
    return claim._texts[name], [*FRONTS[name], *claim.bind(TASKS)[name in LOOKS]]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("empty", [False, True])
def test_claims_go_by_their_indexes(request: pytest.FixtureRequest, lane: str, name: str, empty: bool) -> None:
    """The picks of a claim, whatever the lane, go by the indexes made for them; also if planned on empty tables."""
    dsn = request.getfixturevalue("dsn" if empty else "filled_dsn")
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(
            "select set_config('backfill.queues', '{1,2,3,4,5}', true), set_config('backfill.hidden', 'true', true)"
        )
        plan = explain_hot(connection, *_claim(lane, name))
        connection.rollback()
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()


@pytest.mark.parametrize("lane", ["all tasks", "behind another", "one priority"])
@pytest.mark.parametrize("name", ["claim", "claim_parallel", "hold_window"])
def test_the_parallel_pick_stops_at_the_limit(filled: Connection, lane: str, name: str) -> None:
    """With 200,000 jobs of one run_at nothing sorts or reads more than a few times the limit."""
    filled.execute("select set_config('backfill.queues', '{}', true), set_config('backfill.hidden', 'false', true)")
    limit = 100
    plan = explain_hot(filled, *_claim(lane, name), "analyze, ")
    for node in nodes(plan):
        rows = node["Actual Rows"] * node["Actual Loops"]
        if node["Node Type"] in {"Sort", "Incremental Sort"}:
            assert rows <= limit, node
        assert rows <= 10 * limit, node
        assert node.get("Rows Removed by Filter", 0) <= 10 * limit, node
    assert 100 * limit < PARALLEL


def test_jobs_for_later_are_not_read(filled: Connection) -> None:
    """5,000 jobs of the front's priority that wait for their time cost a look nothing."""
    filled.execute("update graphile_worker._private_jobs set priority = 9 where run_at <= now()")
    filled.execute("select set_config('backfill.queues', '{}', true), set_config('backfill.hidden', 'false', true)")
    for node in nodes(explain_hot(filled, *_claim("all tasks", "claim_parallel"), "analyze, ")):
        if node.get("Index Name") == "jobs_no_queue_index" and node["Actual Loops"] == 1:
            assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 100


def test_headers_name_real_indexes(filled: Connection) -> None:
    """Every index that a header names exists."""
    there = {name for (name,) in filled.execute("select indexname from pg_indexes").fetchall()}
    for name in NAMES:
        assert set(load(name).indexes) <= there
