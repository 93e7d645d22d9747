"""Faults cost little: ended backends, a server full of others' idle connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sides.faults import backlog, ending_backends, idle_connections, workers
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
