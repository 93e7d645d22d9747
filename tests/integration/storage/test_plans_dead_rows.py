"""What a statement reads is bounded by what it is about, whatever the statistics say and however many rows are dead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill.storage.carried import carried
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.statements import render
from dead_rows import DEAD, FILL, FILLED, STATISTICS, WAITING, believe, buffers, samples, unbounded
from plans import CALLS, CARRIED, FRONTS, HOT, Connection, Plan, explain_hot
from plans_reserving import DEAD as DEAD_RESERVATIONS
from plans_windows import LOOKS

MOST_PAGES = 2_000
"""For forty rows. The table of jobs has more pages than that, and walks through its indexes read a hundred times it."""
WORKERS = (*HOT, "find_abandoned", "find_locks", "find_held_locks")
OPERATORS = (
    "find_ends",
    "delete_dead_letters",
    "delete_dead_letter_by_key",
    "next_exhausted_job",
    "get_job",
    "list_attempts",
    "why_job",
    "why_limit",
    "find_known_schedules",
    "find_schedule_jobs",
)
# The adding of runs has a test of its own; force_unlock_workers reads all queues, when an operator asks.
CONTRACT = tuple(name for name in CALLS[2:] if name not in {"add_runs", "force_unlock_workers"})
CLAIMS = (
    "lock_near_queues", "lock_beyond_queues", "lock_known_queues", "claim", "claim_tied", *LOOKS,
)  # fmt: skip
TASKS = {"task1": 1, "task2": 2, "task3": 3}
ADDED: LiteralString = "select * from graphile_worker.add_job('task1', queue_name := 'queue7', job_key := $1)"


@pytest.fixture(scope="module")
def dead_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database with 80 live jobs among 200,000 dead rows, which an old transaction keeps from being vacuumed."""
    name = f"{migrated_template}_dead"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'create database "{name}" template "{migrated_template}"'))
    dsn = make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(dsn) as old, psycopg.connect(dsn, autocommit=True) as connection:
        for table in FILLED:
            connection.execute(
                cast("LiteralString", f"alter table graphile_worker.{table} set (autovacuum_enabled = off)")
            )
        old.execute("select pg_current_xact_id()")
        connection.execute(FILL)
        connection.execute(DEAD_RESERVATIONS)
        yield dsn
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", f'drop database "{name}" with (force)'))


@pytest.fixture(scope="module", params=STATISTICS)
def believed(request: pytest.FixtureRequest, dead_dsn: str) -> str:
    """The same, while the catalogue tells of so many rows."""
    with psycopg.connect(dead_dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        believe(connection, request.param)
    return dead_dsn


@pytest.fixture
def session(believed: str) -> Iterator[Connection]:
    """A new session there, whose transaction is rolled back."""
    with psycopg.connect(believed, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(
            "select set_config('backfill.queues', '{1,2,3}', true), set_config('backfill.hidden', 'false', true)"
        )
        connection.execute(render("make_waiting"))
        connection.execute(WAITING)
        yield connection
        connection.rollback()


def ran(
    connection: Connection, name: str, *, hot: bool, accepted: tuple[str, ...] = (), text: str | None = None
) -> Plan:
    """What a statement did, as a worker's hot connections run it, or as any session does; perhaps in another form.

    A claim takes only jobs with an accepted flag, where there is one.
    """
    parameters = [*samples(connection)[name]]
    if name in FRONTS:
        claim = LaneClaim("graphile_worker", (LaneFilter(tasks=tuple(TASKS)),), accepted_flags=accepted)
        text, bound = claim._texts[name], claim.bind(TASKS)[name in LOOKS]
        parameters += bound
    else:
        text = text or render(name)
    if hot:
        return explain_hot(connection, text, parameters, "analyze, buffers, ")
    explained = cast("LiteralString", f"explain (analyze, buffers, format json) {text}")
    row: Any = connection.execute(explained, parameters).fetchone()
    found = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return cast("Plan", found[0]["Plan"])


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "default"])
@pytest.mark.parametrize("name", [*WORKERS, *CLAIMS])
def test_what_workers_run_reads_by_the_conditions_of_indexes(session: Connection, name: str, hot: bool) -> None:
    """Each table of the queue is read by an index's condition, and few pages of it."""
    plan = ran(session, name, hot=hot)
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "default"])
@pytest.mark.parametrize("name", [*OPERATORS, *CONTRACT])
def test_what_clients_run_reads_by_the_conditions_of_indexes(session: Connection, name: str, hot: bool) -> None:
    """So do clients' statements, and the functions of the contract and of producers, in any session's settings."""
    plan = ran(session, name, hot=hot)
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


@pytest.mark.parametrize("name", sorted({*CARRIED} & {*WORKERS, *OPERATORS}))
def test_the_form_for_other_drivers_reads_by_the_conditions_of_indexes(session: Connection, name: str) -> None:
    """With all parameters as texts the planner knows less of them, and goes the same way."""
    plan = ran(session, name, hot=False, text=carried(name, "graphile_worker", "numeric").text)
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


@pytest.mark.parametrize("name", ["gather_waiting", "producer_gather_waiting"])
def test_waiting_rows_are_added_by_index(session: Connection, name: str) -> None:
    """Forty jobs of a bulk call, half of them with keys that are there, cost some pages each."""
    ran(session, name, hot=False)  # a session's first call reads the catalogue too
    session.execute("delete from graphile_worker._private_jobs where key like 'new%'")
    assert buffers(ran(session, name, hot=False)) <= MOST_PAGES


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_accepted_flags_read_by_the_conditions_of_indexes(session: Connection, name: str) -> None:
    """The condition on flags, which nothing is known of, leads the planner to no other index."""
    plan = ran(session, name, hot=True, accepted=("gpu",))
    assert unbounded(plan) == []
    assert buffers(plan) <= MOST_PAGES


def test_jobs_with_keys_are_added_by_index(session: Connection) -> None:
    """Adding forty jobs with keys to a serial queue, new ones and such as replace, reads a few pages a job."""
    explained = cast("LiteralString", f"explain (analyze, buffers, format json) {ADDED}")
    session.execute(ADDED, ["first"])  # a session's first call reads the catalogue too
    for number in range(40):
        key = f"key{number}" if number % 2 else f"new{number}"
        row: Any = session.execute(explained, [key]).fetchone()
        assert buffers(row[0][0]["Plan"]) <= MOST_PAGES / 10


def test_runs_are_added_by_index(session: Connection) -> None:
    """To add forty jobs reads some pages a job, and to see that their runs are taken reads a few."""
    assert buffers(ran(session, "add_runs", hot=False)) <= 3 * MOST_PAGES
    session.execute(render("add_runs"), samples(session)["add_runs"])
    assert buffers(ran(session, "add_runs", hot=False)) <= MOST_PAGES


def test_dead_letters_are_requeued_by_index(session: Connection) -> None:
    """Forty dead letters, half of them with keys, are found by their ids, and their jobs are added by index."""
    plan = ran(session, "requeue_dead_letters", hot=False)
    assert unbounded(plan) == []
    assert buffers(plan) <= 3 * MOST_PAGES


def test_the_rows_are_dead_and_there(session: Connection) -> None:
    """Nobody sees them, and a look from the very start meets them: else these tests would show nothing."""
    alive, pages = session.execute(
        "select count(*), pg_relation_size('graphile_worker._private_jobs') / 8192 from graphile_worker._private_jobs"
    ).fetchone() or (0, 0)
    assert alive == 80
    assert pages > MOST_PAGES
    session.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    row: Any = session.execute(
        "explain (analyze, buffers, format json) select id from graphile_worker._private_jobs order by id"
    ).fetchone()
    assert buffers(row[0][0]["Plan"]) > DEAD / 2


@pytest.mark.parametrize("name", ["find_held_locks", "release_jobs"])
def test_what_is_done_all_the_time_passes_by_the_workers_own_dead_rows(session: Connection, name: str) -> None:
    """What the worker ran before is not read: the index of locks has an entry for each of those jobs."""
    assert buffers(ran(session, name, hot=False)) <= MOST_PAGES / 5


def test_a_look_for_unknown_tasks_begins_at_floors(session: Connection) -> None:
    """While the fleet knows every task, it reads few pages: those of the priorities from their floors on."""
    session.execute("update graphile_worker.backfill_workers set tasks = array['task1', 'task2', 'task3']")
    assert buffers(ran(session, "find_unknown_tasks", hot=False)) <= MOST_PAGES
