"""How many connections a worker has at rest: as many as it says at its start."""

from __future__ import annotations

import asyncio
import re

import pytest

from backfill import TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient

from plugins.waiting import Eventually
from reading import value

OTHERS = """select count(*) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


@pytest.mark.parametrize("listen", [True, False])
async def test_it_has_as_many_connections_as_it_says(
    dsn: str,
    listen: bool,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it is idle, whatever its services did at once before: what the server counts is what the log says."""
    caplog.set_level("INFO", logger="backfill")
    monkeypatch.setattr(ServicesClient, "_max_idle", 0.2)
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handle() -> None:
        pass

    runner = WorkerRunner(WorkerConfig(dsn, listen=listen), tasks)
    async with runner:
        said = [int(found[1]) for found in re.finditer(r"(\d+) connections at rest", caplog.text)]
        assert said == [4 if listen else 3]
        await eventually(lambda: value(dsn, OTHERS), said[0].__eq__)
        parts = runner._parts
        assert parts is not None
        async with parts.own._connection(None):  # as by a service that is at it for long
            await parts.own.counters()
            assert await value(dsn, OTHERS) == said[0] + 1
        await eventually(lambda: value(dsn, OTHERS), said[0].__eq__)


async def test_services_share_a_connection_and_wait_for_none(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many short calls at once take one connection; one that is kept long does not keep the others.

    The second is let go.
    """
    monkeypatch.setattr(ServicesClient, "_max_idle", 0.2)
    async with ServicesClient(dsn, min_size=1, max_size=2) as client:
        await asyncio.gather(*(client.counters() for _ in range(20)))
        assert await value(dsn, OTHERS) == 1
        async with client._connection(None):
            async with asyncio.timeout(30):
                await client.counters()
            assert await value(dsn, OTHERS) == 2
        await eventually(lambda: value(dsn, OTHERS), (1).__eq__)
