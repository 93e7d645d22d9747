"""What others do to the table of jobs while windows hold rows of it: calls for one job, and changes of all of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, JobSpec, NewJob, TaskRegistry, WorkerContext

from plugins.express import LEFT, LONG, in_windows, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
WAITED: LiteralString = "select count(*) from graphile_worker.complete_jobs(array[%s::bigint])"
ADD: LiteralString = "select id from graphile_worker.add_job('t', %s::json, job_key => %s, job_key_mode => %s)"
OLD: LiteralString = "update graphile_worker._private_jobs set run_at = %s::timestamptz where payload::text = %s"
CHANGES: list[LiteralString] = [
    "alter table graphile_worker._private_jobs add column more integer",
    "alter table graphile_worker._private_jobs drop column more",
    "reindex table graphile_worker._private_jobs",
    "vacuum full graphile_worker._private_jobs",
    "begin; lock table graphile_worker._private_jobs in access exclusive mode; commit",
]
"""What a migration or an administrator does; each statement needs the table for itself."""
WAITS: LiteralString = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query = %s"
SHARING: list[LiteralString] = [
    "reindex table graphile_worker._private_jobs",
    "create index more on graphile_worker._private_jobs (updated_at)",
    "create trigger more after truncate on graphile_worker._private_jobs execute function tsvector_update_trigger()",
]
"""Changes that only keep others from writing to the table at first; the first needs its indexes for itself then."""
NO_LONGER = 10.0
"""Seconds that each may take, on a machine that is busy; a window that waited for it in turn would never end."""


class Runs:
    """An express task `t` that waits for its release where its payload says so, and counts what it has run."""

    def __init__(self) -> None:
        self.began = Counter[Any]()
        self.ended = Counter[Any]()
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "t")
        async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
            self.began[payload] += 1
            if str(payload).startswith("hold"):
                await self.release.wait()
            self.ended[payload] += 1


@pytest.mark.parametrize("outlives", [True, False])
async def test_calls_for_a_job_in_a_window_wait_for_its_end_and_are_right(
    dsn: str, eventually: Eventually, outlives: bool
) -> None:
    """The job is done then, or a worker holds it: in both cases it is neither changed nor removed."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks, express_window=LONG):
        added = await client.enqueue_bulk([NewJob("t", f"hold {number}") for number in range(5)], return_ids=True)
        await eventually(lambda: len(runs.began) == 5)
        first, second, third, fourth, fifth = added.ids or []
        calls = [
            asyncio.ensure_future(call)
            for call in (
                client.remove_job(id=first),
                client.reschedule_jobs([second], priority=9),
                client.complete_jobs([third]),
                client.fail_jobs([fourth], "no"),
                rows(dsn, WAITED, fifth),
            )
        ]
        await rows(dsn, "select graphile_worker.force_unlock_workers(array['another'])")
        if not outlives:
            runs.release.set()
        assert await asyncio.wait_for(asyncio.gather(*calls), NO_LONGER) == [None, [], [], [], [(0,)]]
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert runs.began == runs.ended == Counter({f"hold {number}": 1 for number in range(5)})


async def test_a_key_is_replaced_while_a_window_holds_its_job(dsn: str, eventually: Eventually) -> None:
    """A window finds jobs with keys too, and claims them with its end: both modes are answered as for a running job."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks, express_window=LONG):
        await client.enqueue_bulk(
            [
                NewJob("t", "hold None"),
                NewJob("t", "hold a", JobSpec(job_key="a")),
                NewJob("t", "hold b", JobSpec(job_key="b")),
            ]
        )
        await eventually(lambda: runs.began)
        added = asyncio.gather(
            rows(dsn, ADD, '"again a"', "a", "replace"), rows(dsn, ADD, '"again b"', "b", "unsafe_dedupe")
        )
        await asyncio.wait_for(added, NO_LONGER)
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert max(runs.ended.values()) == 1
    assert runs.ended["hold None"] == runs.ended["again a"] == runs.ended["hold b"] == 1


async def test_the_whole_table_is_changed_beside_windows(dsn: str, eventually: Eventually) -> None:
    """None of the statements waits for long, none is chosen to end a ring, and each job runs once."""
    runs = Runs()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, runs.tasks),
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other,
    ):
        for number, change in enumerate(CHANGES):
            await client.enqueue_bulk(NewJob("t", number * 100 + place) for place in range(100))
            began = time.monotonic()
            await other.execute(change)
            assert time.monotonic() - began < NO_LONGER
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert runs.ended == Counter(range(100 * len(CHANGES)))


@pytest.mark.parametrize("change", SHARING)
async def test_a_change_that_shares_the_table_waits_for_the_window(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture, change: LiteralString
) -> None:
    """It does not lock what the window's end needs, so that the window is not lost, and its job does not run again."""
    runs = Runs()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, runs.tasks, express_window=LONG),
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other,
    ):
        await client.enqueue("t", "hold")
        await eventually(lambda: runs.began)
        caplog.clear()
        changed = asyncio.ensure_future(other.execute(change))
        await eventually(lambda: value(dsn, WAITS, change), (1).__eq__)
        runs.release.set()
        await asyncio.wait_for(changed, NO_LONGER)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert runs.began == runs.ended == Counter(["hold"])
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_jobs_of_long_ago_run_though_windows_have_gone_past_their_time(dsn: str, eventually: Eventually) -> None:
    """Their time is that of a clock which went backwards, or none at all; one that is never due does not run."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks):
        await client.enqueue_bulk(NewJob("t", number) for number in range(100))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            for time_of, payload in [("-infinity", "first"), ("2000-01-01", "old"), ("infinity", "never")]:
                await other.execute(
                    "select graphile_worker.add_job('t', %s::json, run_at => %s::timestamptz)",
                    [f'"{payload}"', time_of],
                )
        await eventually(lambda: value(dsn, LEFT), (1).__eq__)
        await rows(dsn, OLD, "now", '"never"')
        await client.enqueue("t", "last")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert runs.ended == Counter([*range(100), "first", "old", "never", "last"])
