"""Faults cost little: ended backends, a server full of others' idle connections, an old transaction that stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import quantiles

import psycopg
import pytest

from sides.faults import backlog, ending_backends, idle_connections, steadily, workers
from sides.ratio import Figure

Record = Callable[[Figure], Figure]
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.long)])
async def test_rate_while_backends_are_ended(dsn: str, record: Record, seconds: int) -> None:
    """Twice a second one of the workers' connections is ended: at least 0.9 of the rate before it."""
    figure = Figure(f"jobs of 20 ms while backends are ended for {seconds} s, against before", "jobs/s", 0.9)
    await backlog(dsn, 2 * seconds + 10)
    async with workers(dsn) as work:
        await work.rate(1)
        figure.theirs.append(await work.rate(seconds))
        measuring = asyncio.ensure_future(work.rate(seconds))
        assert await ending_backends(dsn, measuring) > seconds
        figure.ours.append(await measuring)
    assert record(figure).holds, figure


async def test_rate_beside_idle_connections(dsn: str, record: Record) -> None:
    """Three hundred of them, or as many as the server has room for: at least 0.9 of the rate without."""
    figure = Figure("jobs of 20 ms beside 300 idle connections, against none", "jobs/s", 0.9)
    await backlog(dsn, 40)
    async with workers(dsn) as work:
        await work.rate(1)
        for _ in range(2):
            figure.theirs.append(await work.rate(5))
            async with idle_connections(dsn, 300) as count:
                assert count > 20
                figure.ours.append(await work.rate(5))
    assert record(figure).holds, figure


@pytest.mark.parametrize(
    "minutes", [0.5, pytest.param(2, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.long)]
)
async def test_an_old_transaction(dsn: str, record: Record, minutes: float) -> None:
    """Under 800 jobs a second the last part is as fast as the first, and jobs wait less than twice as long."""
    part = min(60.0, minutes * 20)
    rate = Figure(
        f"800 jobs/s under a transaction of {minutes:g} minutes, its last part against the first", "jobs/s", 0.9
    )
    late = Figure(f"p99 of the wait under a transaction of {minutes:g} minutes, the same", "s", 2.0, less=True)
    async with workers(dsn, slots=30) as work, await psycopg.AsyncConnection.connect(dsn) as old:
        producing = asyncio.create_task(steadily(dsn, 800, minutes * 60 + 5))
        await work.rate(3)
        await old.execute("set transaction isolation level repeatable read")
        await old.execute("select count(*) from graphile_worker._private_jobs")
        for figures in (rate.theirs, rate.ours):
            work.waits.clear()
            figures.append(await work.rate(part))
            (late.theirs if figures is rate.theirs else late.ours).append(quantiles(work.waits, n=100)[98])
            if figures is rate.theirs:
                await asyncio.sleep(max(minutes * 60 - 2 * part, 0))
        await old.rollback()
        producing.cancel()
        await asyncio.wait([producing])
    assert record(rate).holds, rate
    assert record(late).holds, late
