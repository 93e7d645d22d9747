"""Results that are awaited while the database goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner

from places import TESTS
from plugins.away import OwnServer
from plugins.waiting import Eventually
from reading import lookers

WAITERS = TESTS / "fleet" / "waiters.py"
HOUR = timedelta(hours=1)


@pytest.mark.timeout(120)
async def test_a_hundred_who_wait_in_three_processes_bear_a_restart(
    own_server: OwnServer, eventually: Eventually
) -> None:
    """Half of the jobs end before the restart and half after it, while all are awaited: each gets its own result."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("double", keep=HOUR)
    async def double(number: int) -> int:
        return 2 * number

    dsn = own_server.dsn
    async with BackfillClient(dsn, migrate=True) as client:
        ids = (await client.enqueue_bulk((double.job(n) for n in range(100)), return_ids=True, delay=HOUR)).ids
        assert ids is not None
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, str(WAITERS), dsn, *map(str, ids[first::3]), stdout=PIPE, stderr=PIPE
            )
            for first in range(3)
        ]
        await eventually(lambda: lookers(dsn), lambda count: count == 3)
        runner = WorkerRunner(WorkerConfig(dsn), tasks)
        async with runner:
            await client.reschedule_jobs(ids[:50], run_at=None, delay=timedelta(0))
            await client.result(ids[49], timeout=30)
            await own_server.stop()
            await own_server.start()
            assert own_server.dsn == dsn
            async with BackfillClient(dsn) as other:
                await other.reschedule_jobs(ids[50:], delay=timedelta(0))
            answers = [await process.communicate() for process in processes]
    assert [error for _, error in answers if b"Traceback" in error] == []
    results = [json.loads(output) for output, _ in answers]
    assert results == [[2 * n for n in range(first, 100, 3)] for first in range(3)]
