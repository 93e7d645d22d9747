"""Claims that begin at a place in the table read by places and stop at the limit, whatever statistics say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill.storage.claims import NEVER, LaneClaim, LaneFilter, Look, Spans
from backfill.storage.connection import connect
from backfill.storage.statements import render
from backfill.storage.ties import PAGES
from backfill.storage.wire import Command, Wire
from backfill.worker.lanes.scan_cursor import ScanCursor
from dead_rows import STATISTICS, believe
from plans import Connection, explain_hot, nodes

PAUSED, OTHERS, LIMIT = 20_000, 2_000, 100
FILL: LiteralString = f"""
insert into graphile_worker._private_tasks (identifier) values ('paused'), ('other');
insert into graphile_worker._private_jobs (task_id, run_at)
select case when n <= {PAUSED} then 1 else 2 end, now() - interval '1 hour'
from generate_series(1, {PAUSED + OTHERS}) as n order by n;
insert into graphile_worker._private_jobs (task_id, run_at, priority)
select 2, now() - interval '2 hours' + n * interval '1 hour', n from generate_series(-1, 1) as n
"""
CLAIM = LaneClaim("graphile_worker", (LaneFilter(("paused", "other")),))
IDS = {"paused": 1, "other": 2}
LEFT_OUT = frozenset({"paused"})
ENTRIES: LiteralString = "select min(ctid)::text, min(run_at) from graphile_worker._private_jobs where id = $1"


@pytest.fixture(params=[None, *STATISTICS])
def filled(dsn: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A queue of jobs of one run_at, most of a task that is left out; the catalogue says what it likes."""
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        for statement in FILL.split(";"):
            connection.execute(statement)
        if request.param is not None:
            believe(connection, request.param)
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("name", ["claim_tied", "claim_parallel_tied", "hold_window_tied"])
def test_a_claim_from_a_place_reads_what_it_takes(filled: Connection, name: str) -> None:
    """It begins at the place, goes by the table's order, and reads no job of the task that is left out."""
    filled.execute("select set_config('backfill.queues', '{}', true), set_config('backfill.hidden', 'false', true)")
    row = filled.execute(ENTRIES, [PAUSED + 1]).fetchone()
    assert row is not None
    place, run_at = row
    assert isinstance(run_at, datetime)
    page = int(place.strip("()").split(",")[0])
    tie = [0, [run_at - timedelta(microseconds=1), run_at], place, f"({page + PAGES},0)"]
    lows, highs, floors = [-32768, 0, 1], [-1, 0, 32767], ["-infinity", str(run_at), "-infinity"]
    bound = CLAIM.bind(IDS, LEFT_OUT)[name != "claim_tied"]
    parameters = ["w", LIMIT, [], lows, highs, floors, LIMIT, 2**30, *tie, *bound]
    found = list(nodes(explain_hot(filled, CLAIM._texts[name], parameters, "analyze, ")))
    assert [
        node["Actual Rows"] for node in found if node["Node Type"] == "Tid Range Scan" and node["Actual Loops"]
    ] == [99]
    for node in found:
        assert node["Node Type"] != "Seq Scan"
        assert node.get("Rows Removed by Filter", 0) <= LIMIT, node
        assert node["Actual Rows"] * node["Actual Loops"] <= 4 * LIMIT, node


async def test_claims_go_on_from_place_to_place(dsn: str) -> None:
    """All other jobs are claimed in the contract's order: those before the tie, the tie, and those after it."""
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        for statement in FILL.split(";"):
            await connection.execute(statement)
        await wire.send([Command.of("set_hot", "graphile_worker", "false")], timeout=30)
        bound = CLAIM.bind(IDS, LEFT_OUT)
        order = list[tuple[int, int, int]]()
        tied = 0
        horizon = ScanCursor()
        horizon.tracks = True
        for turn in range(60):
            look = horizon.look(LIMIT, 0.0)
            tied += look.tie is not None
            results = await wire.send(CLAIM.commands(look, worker="w", bound=bound), timeout=30)
            taken = CLAIM.read(results, {1: "paused", 2: "other"}, tracked=look.tracked)
            order += [(job.priority, job.run_at_micros, job.id) for job in taken.jobs]
            horizon.learn(look, taken, seconds=0.01, now=turn * 0.01)
    assert len(order) == OTHERS + 3
    assert order == sorted(order)
    assert tied > OTHERS / LIMIT - 3


async def test_the_first_look_says_where_it_ended(dsn: str) -> None:
    """The claim that merges serial and parallel jobs does, and so does the one of parallel jobs alone."""
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        for statement in FILL.split(";"):
            await connection.execute(statement)
        bound = CLAIM.bind(IDS, LEFT_OUT)
        front = Spans.of({0: NEVER})
        places = list[Any]()
        for scan in (True, False):
            look = Look(LIMIT, front, scan_jobs=scan, scan_queues=False, tracked=True)
            cursor = await connection.execute(
                "select ctid::text from graphile_worker._private_jobs"
                " where is_available and task_id = 2 and priority = 0 order by id offset $1 limit 1",
                [LIMIT - 3 if scan else LIMIT - 1],
            )
            [expected] = await cursor.fetchone() or [None]
            results = await wire.send(CLAIM.commands(look, worker="w", bound=bound), timeout=30)
            place = CLAIM.read(results, {2: "other"}, tracked=True).place
            assert place is not None
            places.append((f"({place.page},{place.item})", expected))
    assert all(found == expected for found, expected in places)


def test_no_plan_of_a_place_is_left_to_statistics(dsn: str) -> None:
    """Also where it is planned while the table is empty, as a worker does that starts before its first job."""
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(render("set_hot"), [False])
        bound = CLAIM.bind(IDS, LEFT_OUT)[1]
        parameters = ["w", 1, [], [0], [0], ["-infinity"], 1, 1, None, None, None, None, *bound]
        kinds = {
            node["Node Type"]
            for node in nodes(explain_hot(connection, CLAIM._texts["claim_parallel_tied"], parameters))
        }
    assert "Tid Range Scan" in kinds
    assert "Seq Scan" not in kinds
