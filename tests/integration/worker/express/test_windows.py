"""Jobs in windows: each runs once and is gone, its row says nothing of it meanwhile, and nobody else gets it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    JobComplete,
    JobFetch,
    JobStart,
    NewJob,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from hearing import Heard
from plugins.express import FREE, LEFT, LONG, ROW, SESSIONS, WARM, in_windows, is_free, row, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")


class Held:
    """An express task whose handlers wait until they are released, and one that returns at once."""

    def __init__(self) -> None:
        self.began = list[Any]()
        self.attempts = list[int]()
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "hold")
        async def hold(payload: Any, ctx: WorkerContext[None]) -> None:
            self._note(payload, ctx)
            await self.release.wait()

        @short(self.tasks, "quick")
        async def quick(payload: Any, ctx: WorkerContext[None]) -> None:
            self._note(payload, ctx)

    def _note(self, payload: Any, ctx: WorkerContext[None]) -> None:
        self.began.append(payload)
        self.attempts.append(ctx.attempt)


async def test_a_job_in_a_window_looks_as_if_it_waited(dsn: str, eventually: Eventually) -> None:
    """Its row is unlocked and has no attempt while its handler runs; but its lock keeps it from others, and it ends."""
    held = Held()
    async with BackfillClient(dsn) as client, in_windows(dsn, held.tasks, express_window=LONG):
        job = await client.enqueue("hold", 1)
        assert job.id is not None
        await eventually(lambda: held.began == [1])
        assert await row(dsn, job.id) == (0, None)
        assert not await is_free(dsn, job.id)
        found = await client.get_job(job.id)
        assert found is not None
        assert (found.locked_by, found.attempts) == (None, 0)
        held.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert held.attempts == [1]


async def test_each_job_of_a_backlog_runs_once(dsn: str, eventually: Eventually) -> None:
    """In many windows one after the other, on both lines; what is enqueued meanwhile runs too."""
    held = Held()
    heard = Heard()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, held.tasks, concurrency=100, plugins=[heard]),
    ):
        await client.enqueue_bulk(NewJob("quick", number) for number in range(1000))
        for number in range(1000, 1050):
            await client.enqueue("quick", number)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        assert await rows(dsn, SESSIONS)
    assert sorted(held.began) == list(range(1050))
    assert set(held.attempts) == {1}
    told = Counter(event.job.payload for event in heard.events if isinstance(event, JobComplete))
    del told[WARM]
    assert told == Counter(range(1050))


async def test_what_a_window_completes_is_told_as_other_ends_are(dsn: str) -> None:
    """`process_available_jobs` counts them, hooks hear of them in order, and counters have them."""
    held = Held()
    heard = Heard()
    async with BackfillClient(dsn) as client:
        await client.enqueue("quick", WARM, priority=-1)
        await client.enqueue_bulk(NewJob("quick", number) for number in range(1000))
        runner = WorkerRunner(WorkerConfig(dsn, concurrency=50), held.tasks, plugins=[heard])
        assert await runner.process_available_jobs() == 1001
        assert await value(dsn, LEFT) == 0
        ran = await client.counters(since=datetime.now(UTC) - timedelta(minutes=5))
    assert sorted(held.began) == list(range(1000))
    assert sum(counts.done for counts in ran if counts.task == "quick") == 1001
    assert sum(counts.failed + counts.retried + counts.dead for counts in ran) == 0
    told = dict[int, list[str]]()
    for event in heard.events:
        if isinstance(event, JobFetch | JobStart | JobComplete):
            told.setdefault(event.job.id, []).append(type(event).__name__)
    assert len(told) == 1001
    for names in told.values():  # a job that its window lets go, since no slot fell free in time, is fetched again
        assert names[-2:] == ["JobStart", "JobComplete"]
        assert set(names[:-2]) == {"JobFetch"}


async def test_a_handler_that_outlives_its_window_goes_on_as_others_do(dsn: str, eventually: Eventually) -> None:
    """Its attempt is written into its row with the time of its start, and its end once it ends; it runs once."""
    held = Held()
    async with BackfillClient(dsn) as client, in_windows(dsn, held.tasks) as runner:
        before = await value(dsn, "select clock_timestamp()")
        jobs = [await client.enqueue("hold", number) for number in range(5)]
        ids = [job.id for job in jobs if job.id is not None]
        found = await eventually(
            lambda: rows(dsn, "select locked_by, attempts, locked_at, updated_at from graphile_worker._private_jobs"),
            lambda found: all(line[0] == runner.worker_id for line in found),
        )
        assert {line[1] for line in found} == {1}
        assert all(before < line[2] == line[3] for line in found)
        assert [await is_free(dsn, job) for job in ids] == [True] * 5  # no lock of a transaction is left
        held.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await client.enqueue("quick", 9)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert sorted(held.began) == [0, 1, 2, 3, 4, 9]
    assert set(held.attempts) == {1}


async def test_a_slow_handler_does_not_keep_its_neighbours(dsn: str, eventually: Eventually) -> None:
    """Those of its window that have completed are deleted when it ends, while the slow one runs on."""
    held = Held()
    async with BackfillClient(dsn) as client, in_windows(dsn, held.tasks):
        await client.enqueue_bulk([NewJob("hold", "slow"), *(NewJob("quick", number) for number in range(50))])
        await eventually(lambda: value(dsn, LEFT), (1).__eq__)
        held.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert Counter(held.began) == Counter([*range(50), "slow"])


async def test_an_idle_worker_has_no_transaction_open(dsn: str, eventually: Eventually) -> None:
    """A look that finds nothing ends its transaction in the same breath, so that nothing is kept from vacuum."""
    held = Held()
    idle = "select count(*) from pg_stat_activity where datname = current_database() and xact_start is not null"
    async with BackfillClient(dsn) as client, in_windows(dsn, held.tasks):
        for number in range(3):
            await client.enqueue("quick", number)
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
            await eventually(lambda: value(dsn, f"{idle} and pid <> pg_backend_pid()"), (0).__eq__, timeout=5)
    assert held.began == [0, 1, 2]


async def test_two_workers_share_a_backlog(dsn: str, eventually: Eventually) -> None:
    """Each passes over what the other's windows hold, and no job runs twice."""
    held, other = Held(), Held()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, held.tasks),
        in_windows(dsn, other.tasks),
    ):
        await client.enqueue_bulk(NewJob("quick", number) for number in range(1000))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert sorted(held.began + other.began) == list(range(1000))
    assert held.began
    assert other.began


@pytest.mark.parametrize("settings", [{"express": False}, {"concurrency": 1}])
async def test_jobs_run_the_ordinary_way_where_windows_are_not_for_them(
    dsn: str, eventually: Eventually, settings: dict[str, Any]
) -> None:
    """Windows are switched off, or a lane has one slot, so that one sees its order: the worker locks rows."""
    held = Held()
    async with BackfillClient(dsn) as client, in_windows(dsn, held.tasks, proves=False, **settings) as runner:
        for _ in range(3):
            await client.enqueue("quick", WARM)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        job = await client.enqueue("hold", 1)
        assert job.id is not None
        await eventually(lambda: held.began == [1])
        assert await row(dsn, job.id) == (1, runner.worker_id)
        assert not await rows(dsn, SESSIONS)
        held.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)


async def test_another_session_can_look_at_the_rows_of_a_window(dsn: str, eventually: Eventually) -> None:
    """A plain read does not wait, and a `skip locked` passes the row by, as other workers' claims do."""
    held = Held()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, held.tasks, express_window=LONG),
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        job = await client.enqueue("hold", 1)
        await eventually(lambda: held.began == [1])
        await other.execute("set local lock_timeout = '100ms'")
        assert await (await other.execute(ROW, [job.id])).fetchall() == [(0, None)]
        assert await (await other.execute(FREE, [job.id])).fetchall() == [(0,)]
        await other.rollback()
        held.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
