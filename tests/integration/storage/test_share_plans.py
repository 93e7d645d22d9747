"""What taking shares reads is bounded, whatever the statistics say and however many versions of its rows are dead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill.storage.claims import LaneFilter
from backfill.storage.shares import LimitedClaim, limited
from backfill.storage.statements import render
from backfill.storage.value_claims import ValueClaim
from dead_rows import STATISTICS, buffers, unbounded
from plans import FRONTS, Connection, Plan, explain_hot, header_indexes, indexes, whole_scans
from share_takers import SCHEMA, TASK

DEAD = 100_000
MOST_PAGES = 600
"""For a take of four slots; the dead versions fill more than a thousand pages, and their entries in indexes others."""
FILL: LiteralString = f"""
insert into graphile_worker._private_tasks (identifier) values ('{TASK}');
insert into graphile_worker.backfill_limits (task, most, rate_count, rate_micros, source)
values ('{TASK}', 4, 1000, 1000000, 'operator'), ('by', 4, null, null, 'operator');
update graphile_worker.backfill_limits set by_path = 'tenant' where task = 'by';
insert into graphile_worker.backfill_shares (task, value, slot, turn, job_id, worker, attempt)
select '{TASK}', '', slot, turn, turn, 'worker', 1
from generate_series(1, 4) as slot, generate_series(1, {DEAD // 4}) as turn;
delete from graphile_worker.backfill_shares where turn < {DEAD // 4};
insert into graphile_worker.backfill_limit_states (task, value, next_at, slots)
select '{TASK}', '', now() - n * interval '1 ms', 4 from generate_series(1, {DEAD}) as n;
delete from graphile_worker.backfill_limit_states where next_at < now() - interval '1.5 ms';
insert into graphile_worker._private_jobs (task_id, run_at, flags)
select 1, now() - interval '1 hour', case
  when n % 2 = 0 then jsonb_build_object('backfill.limited', true, 'backfill.limit:v' || n % 40, true)
end
from generate_series(1, 400) as n;
"""
TABLES = ("backfill_shares", "backfill_limit_states", "backfill_limits", "_private_jobs")


@pytest.fixture(scope="module")
def dead_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database in which slots and states have 100,000 versions that an old transaction keeps."""
    name = f"{migrated_template}_shares"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'create database "{name}" template "{migrated_template}"'))
    dsn = make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(dsn) as old, psycopg.connect(dsn, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(
                cast("LiteralString", f"alter table graphile_worker.{table} set (autovacuum_enabled = off)")
            )
        old.execute("select pg_current_xact_id()")
        connection.execute(FILL)
        yield dsn
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'drop database "{name}" with (force)'))


@pytest.fixture(params=STATISTICS)
def dead(request: pytest.FixtureRequest, dead_dsn: str) -> Iterator[Connection]:
    """A session there, while the catalogue tells of so many rows; its transaction is rolled back."""
    count, pages = STATISTICS[request.param]
    with psycopg.connect(dead_dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(
            """
            update pg_class as classes set reltuples = $1, relpages = $2, relallvisible = 0
            from unnest($3::text[]) as names (name)
            cross join to_regclass('graphile_worker.' || name) as read
            where classes.oid = read
              or classes.oid in (select indexrelid from pg_index where indrelid = read)
            """,
            [count, pages, list(TABLES)],
        )
        yield connection
        connection.rollback()


def _ran(connection: Connection, text: str, parameters: list[Any]) -> Plan:
    explain_hot(connection, text, parameters, "analyze, ")  # a session's first call reads the catalogue too
    return explain_hot(connection, text, parameters, "analyze, buffers, ")


def test_a_take_reads_a_few_pages(dead: Connection) -> None:
    """The newest version of each slot and of the state is found without a look at the dead ones."""
    take = render("take_shares"), [TASK, None, 4, 0]
    assert buffers(_ran(dead, *take)) <= MOST_PAGES
    claim = LimitedClaim(SCHEMA, (LaneFilter(tasks=(TASK,)),))
    text = claim._claim._texts["claim"]
    dead.execute(*take)
    front = [*FRONTS["claim"], *claim.bind({TASK: 1})[0]]
    plan = explain_hot(dead, text, front, "analyze, buffers, ")
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pass_shares", ["worker", [DEAD // 4], [7]]),
        ("claim_taken", ["w"]),
    ],
)
def test_what_names_jobs_reads_a_few_pages(dead: Connection, name: str, values: list[Any]) -> None:
    """Shares are found by their jobs, and taken jobs by their ids."""
    plan = _ran(dead, render(cast("LiteralString", name)), values)
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


@pytest.mark.parametrize("accepted", [(), ("gpu",)])
def test_a_look_at_values_reads_by_its_index(dead: Connection, accepted: tuple[str, ...]) -> None:
    """Values and their first jobs are found by the index of limited jobs alone, whatever flags are accepted."""
    claim = ValueClaim(SCHEMA, "by", "tenant", (LaneFilter(tasks=(TASK,)),), accepted_flags=accepted)
    dead.execute("insert into graphile_worker.backfill_limit_states values ('by', 'v0', now(), 4)")
    plan = _ran(dead, claim._text, ["w", 50, [], "by", "tenant", [1], None, 500, [], [], *claim.bind({TASK: 1})[0]])
    assert unbounded(plan) == []
    assert indexes(plan) >= header_indexes("take_values")
    assert buffers(plan) <= 40 * MOST_PAGES


def test_a_full_limit_reads_no_jobs(dead: Connection) -> None:
    """Where nothing is granted, no statement of the claim touches a waiting job or a queue."""
    dead.execute("select set_config('backfill.quota', '0', true), set_config('backfill.queues', '{}', true), "
                 "set_config('backfill.hidden', 'false', true), set_config('backfill.slots', '{}', true), "
                 "set_config('backfill.state', '{}', true), set_config('backfill.clock', '0', true), "
                 "set_config('backfill.step', '0', true)")  # fmt: skip
    claim = LimitedClaim(SCHEMA, (LaneFilter(tasks=(TASK,)),))
    for name in ("lock_near_queues", "claim"):
        text = claim._claim._texts[name]
        assert "least(" in limited(name)
        plan = explain_hot(dead, text, [*FRONTS[name], *claim.bind({TASK: 1})[0]], "analyze, buffers, ")
        assert buffers(plan) <= 5


@pytest.mark.parametrize(
    "name", ["claim", "lock_near_queues", "lock_beyond_queues", "lock_known_queues", "lock_far_queues"]
)
def test_limited_claims_go_by_the_indexes_of_the_usual_ones(dsn: str, name: str) -> None:
    """The forms of the claim's statements for limited tasks have the same indexes, planned on empty tables."""
    claim = LimitedClaim(SCHEMA, (LaneFilter(tasks=(TASK,)),), by="tenant")
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        add = "insert into graphile_worker.backfill_limits (task, most, by_path, source) values ($1, 1, 'tenant', 'x')"
        connection.execute(add, [TASK])
        connection.execute(render("take_shares"), [TASK, "tenant", 1, 0])
        plan = explain_hot(connection, claim._claim._texts[name], [*FRONTS[name], *claim.bind({TASK: 1})[0]])
        connection.rollback()
    assert indexes(plan) >= header_indexes(name)
    assert whole_scans(plan) == set()
