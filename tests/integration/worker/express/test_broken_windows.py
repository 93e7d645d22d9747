"""Windows whose connection breaks: handlers are cancelled at once, none of their ends is written, nothing is lost."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext, WorkerRunner

from plugins.express import END_SESSIONS, LEFT, LONG, all_in_windows, in_windows, row, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
AT_ONCE = 0.5
"""Seconds within which the handlers of a lost window are told; this machine may be busy."""
TOUCH: LiteralString = "update graphile_worker._private_jobs set priority = priority where payload::text = %s"

TAKE: LiteralString = "select id from graphile_worker._private_jobs for update skip locked"


class Runs:
    """An express task that waits for its release where its payload says so, and notes what happens to it."""

    def __init__(self) -> None:
        self.began = list[Any]()
        self.cancelled = list[Any]()
        self.ended = list[Any]()
        self.cancelled_at = 0.0
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "t")
        async def handler(payload: str, ctx: WorkerContext[None]) -> None:
            self.began.append(payload)
            assert ctx.attempt == 1
            try:
                if payload.startswith("wait"):
                    await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append(payload)
                self.cancelled_at = time.monotonic()
                raise
            self.ended.append(payload)


async def test_the_handlers_of_a_lost_window_are_cancelled_at_once(dsn: str, eventually: Eventually) -> None:
    """As soon as the server ends the session; the jobs run again, each to its end, in their first attempt."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks, express_window=LONG):
        waiting = [f"wait{number}" for number in range(5)]
        await client.enqueue_bulk(NewJob("t", name) for name in waiting)
        await eventually(lambda: len(runs.began) == 5)
        began = time.monotonic()
        await rows(dsn, END_SESSIONS)
        await eventually(lambda: len(runs.cancelled) == 5)
        assert runs.cancelled_at - began < AT_ONCE
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert sorted(runs.cancelled) == sorted(runs.ended) == waiting
    assert Counter(runs.began) == Counter(waiting * 2)


async def test_what_a_lost_window_had_completed_does_not_run_again(dsn: str, eventually: Eventually) -> None:
    """Its rows are unchanged, so that they are deleted afterwards; only the one that still ran does so again."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks, express_window=LONG):
        names = [f"job{number}" for number in range(8)]
        await client.enqueue_bulk(NewJob("t", name) for name in [*names, "wait"])
        await eventually(lambda: len(runs.began) == 9)
        assert await value(dsn, LEFT) == 9
        await rows(dsn, END_SESSIONS)
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert Counter(runs.ended) == Counter([*names, "wait"])


async def test_a_completed_job_whose_row_was_touched_runs_again(dsn: str, eventually: Eventually) -> None:
    """Somebody has waited for the row's lock and writes it as soon as the window is lost: it may be another job now."""
    runs = Runs()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, runs.tasks, express_window=LONG) as runner,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other,
    ):
        before = await completed(client, runner)
        await client.enqueue_bulk(NewJob("t", name) for name in ("same", "touched", "wait"))
        await eventually(lambda: len(runs.began) == 3)
        touching = asyncio.ensure_future(other.execute(TOUCH, ['"touched"']))
        await eventually(
            lambda: value(dsn, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), (1).__eq__
        )
        await rows(dsn, END_SESSIONS)
        await touching
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        counted = await completed(client, runner) - before
    assert Counter(runs.ended) == Counter({"same": 1, "touched": 2, "wait": 1})
    assert counted == 3  # the first attempt of the one that was touched counts for nothing


async def completed(client: BackfillClient, runner: WorkerRunner[Any]) -> int:
    """How many attempts are counted as completed."""
    await runner.flush_counters()
    return sum(row.done for row in await client.counters(task="t"))


async def test_the_rows_of_a_lost_window_are_free_for_others_at_once(dsn: str, eventually: Eventually) -> None:
    """Another worker does not wait for anything; what the handlers of the lost window do meanwhile is not written."""
    runs = Runs()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, runs.tasks, express_window=LONG) as runner,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        assert runner._parts is not None
        paused = runner._parts.one.executor.paused
        await client.enqueue_bulk(NewJob("t", f"wait{number}") for number in range(5))
        await eventually(lambda: len(runs.began) == 5)
        await client.pause(task="t")  # else this worker may be faster to take them again
        await eventually(lambda: "t" in paused.names)
        assert (await other.execute(TAKE)).rowcount == 0
        ended = time.monotonic()
        await rows(dsn, END_SESSIONS)
        await eventually(lambda: _take(other), (5).__eq__)
        assert time.monotonic() - ended < 2 * AT_ONCE
        await eventually(lambda: len(runs.cancelled) == 5)
        assert await value(dsn, LEFT) == 5
        await other.execute("delete from graphile_worker._private_jobs")
        await other.commit()
    assert runs.ended == []


async def _take(other: psycopg.AsyncConnection[Any]) -> int:
    return (await other.execute(TAKE)).rowcount


async def test_a_job_that_was_entered_into_its_row_survives_the_loss_of_the_line(
    dsn: str, eventually: Eventually
) -> None:
    """Once its handler has outlived its window, the job is held as others are."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks) as runner:
        job = await client.enqueue("t", "wait")
        assert job.id is not None
        await eventually(lambda: row(dsn, job.id or 0), (1, runner.worker_id).__eq__)
        await rows(dsn, END_SESSIONS)
        runs.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert runs.began == runs.ended == ["wait"]


async def test_the_clean_up_of_a_cancelled_handler_may_use_the_number_of_the_lost_socket(
    dsn: str, eventually: Eventually
) -> None:
    """The library has closed the lost connection's socket: who opens one then gets its number, and can wait for it."""
    loop, began, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        if began.is_set():
            return
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            sockets = {one: asyncio.Event() for _ in range(4) for one in socket.socketpair()}
            for one, heard in sockets.items():
                loop.add_reader(one, heard.set)
                loop.call_later(0.05, one.send, b"x")
            try:
                async with asyncio.timeout(5):
                    await asyncio.gather(*(heard.wait() for heard in sockets.values()))
                ended.set()
            finally:
                for one in sockets:
                    loop.remove_reader(one)
                    one.close()

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG):
        await client.enqueue("t", 1)
        await began.wait()
        await rows(dsn, END_SESSIONS)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_worker_goes_back_to_windows(dsn: str, eventually: Eventually) -> None:
    """After a lost one, and after many of them."""
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks) as runner:
        for number in range(5):
            await client.enqueue_bulk(NewJob("t", f"{number}") for _ in range(200))
            await rows(dsn, END_SESSIONS)
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: all_in_windows(runner))
        await client.enqueue("t", "last")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert set(runs.ended) == {"0", "1", "2", "3", "4", "last"}
    assert all(count >= 200 for name, count in Counter(runs.ended).items() if name != "last")


async def test_jobs_run_where_an_express_line_cannot_connect(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has no slot left for it: they run the ordinary way meanwhile, and by windows once it has one."""
    from backfill.worker.express import line

    real, refused = line.connect, list[str]()

    async def connect(dsn: Any, *, application_name: str = "") -> Any:
        if len(refused) < 3:
            refused.append(application_name)
            raise psycopg.errors.TooManyConnections("sorry, too many clients already")
        return await real(dsn, application_name=application_name)

    monkeypatch.setattr(line, "connect", connect)
    monkeypatch.setattr("backfill.worker.express.mode.REST_SECONDS", 0.2)
    runs = Runs()
    async with BackfillClient(dsn) as client, in_windows(dsn, runs.tasks, proves=False) as runner:
        for number in range(300):
            await client.enqueue("t", f"{number}")
            if number % 20 == 0:
                await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: len(refused) == 3 and all_in_windows(runner))
    assert Counter(runs.ended) == Counter(f"{number}" for number in range(300))
