"""A worker that stops while a window is open: nothing is lost, and what had not begun goes back as it was."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext
from backfill.storage.attempts import give_back_strays
from backfill.storage.connection import connect

from plugins.away import OwnServer
from plugins.express import LEFT, LONG, in_windows, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
STATE: LiteralString = "select attempts, locked_by from graphile_worker._private_jobs"
VERSIONS: LiteralString = "select id, ctid::text, xmin::text from graphile_worker._private_jobs"


class Waiting:
    """An express task whose handlers wait for their release."""

    def __init__(self) -> None:
        self.began = list[Any]()
        self.ended = list[Any]()
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "t")
        async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
            self.began.append(payload)
            await self.release.wait()
            self.ended.append(payload)


async def test_a_stop_lets_go_of_what_had_not_begun(dsn: str, eventually: Eventually) -> None:
    """Those whose handlers run may end, and complete; the others' rows are as if nobody had held them."""
    waiting = Waiting()
    async with BackfillClient(dsn) as client:
        async with in_windows(dsn, waiting.tasks, concurrency=4, express_window=LONG) as runner:
            await client.enqueue_bulk(NewJob("t", number) for number in range(20))
            await eventually(lambda: len(waiting.began) == 4)
            before = await rows(dsn, VERSIONS)
            asyncio.get_running_loop().call_later(0.1, waiting.release.set)
        assert waiting.began == waiting.ended
        assert runner.tally.given_back == 0  # nobody had claimed them yet
        left = await rows(dsn, VERSIONS)
        assert set(await rows(dsn, STATE)) == {(0, None)}
    assert len(left) == 20 - len(waiting.ended)
    assert set(left) < set(before)


async def test_an_interrupted_handler_gives_its_job_back(dsn: str, eventually: Eventually) -> None:
    """It does not end in the time that a shutdown has; its attempt counts for nothing, in a window or after it."""
    waiting = Waiting()
    async with BackfillClient(dsn) as client:
        second = timedelta(seconds=0.2)
        async with in_windows(dsn, waiting.tasks, concurrency=4, express_window=LONG, shutdown_timeout=second):
            await client.enqueue_bulk(NewJob("t", number) for number in range(8))
            await eventually(lambda: len(waiting.began) == 4)
        assert waiting.ended == []
        assert await rows(dsn, STATE) == [(0, None)] * 8


async def test_a_backlog_is_run_by_one_worker_after_the_other(dsn: str, eventually: Eventually) -> None:
    """Each stops in the middle of it."""
    waiting = Waiting()
    waiting.release.set()
    async with BackfillClient(dsn) as client:
        for _ in range(4):
            async with in_windows(dsn, waiting.tasks, proves=False):
                seen = len(waiting.began)
                await client.enqueue_bulk(NewJob("t", number) for number in range(200))
                await eventually(lambda seen=seen: len(waiting.began) > seen + 50)
        async with in_windows(dsn, waiting.tasks, proves=False):
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert Counter(waiting.ended) == Counter([*range(200)] * 4)


@pytest.mark.timeout(150)
async def test_a_stop_while_the_database_is_away_ends(own_server: OwnServer, eventually: Eventually) -> None:
    """The window is lost, and its jobs are free when the server is back; none of them has an attempt."""
    waiting = Waiting()
    async with BackfillClient(own_server.dsn, migrate=True) as client:
        async with in_windows(own_server.dsn, waiting.tasks, concurrency=4, express_window=LONG):
            await client.enqueue_bulk(NewJob("t", number) for number in range(8))
            await eventually(lambda: len(waiting.began) == 4)
            before = await rows(own_server.dsn, VERSIONS)
            await own_server.stop()
            waiting.release.set()
            began = time.monotonic()
        assert time.monotonic() - began < 60
        await own_server.start()
        assert await rows(own_server.dsn, VERSIONS) == before


async def test_only_the_locks_that_were_found_go_back(dsn: str) -> None:
    """A window may write claims while the worker compares its locks: these are not among those that were found."""
    async with BackfillClient(dsn) as client:
        first, second = [(await client.enqueue("t", number)).id for number in range(2)]
    assert first is not None
    await rows(dsn, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1")
    async with await connect(dsn) as connection:
        found = await give_back_strays(connection, schema="graphile_worker", worker="w", held=[], only=[first])
    assert found == ([first], [])
    assert await rows(dsn, "select id from graphile_worker._private_jobs where locked_by = 'w'") == [(second,)]
