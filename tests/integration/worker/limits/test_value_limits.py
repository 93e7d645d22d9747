"""Limits that count for each value of a payload's field: each value has its own, and full ones hinder no others."""

from __future__ import annotations

import time
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Limit, Rate, TaskRegistry
from fleet.processes import fleet_of, jobs_left, nothing_locked

from reading import rows, value

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too

MOST_OF_EACH: LiteralString = """
select value, max(running) from (
  select value, sum(step) over (partition by value order by at, step) as running
  from (
    select coalesce(value, '') as value, began as at, 1 as step from attempts
    union all
    select coalesce(value, ''), ended, -1 from attempts
  ) as steps
) as sums
group by value
order by value
"""


tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("limited_span", limit=Limit(1, by="value"))
async def limited_span(_: dict[str, Any]) -> None:
    """What those who enqueue know of the task; the fleet's program runs another handler."""


async def _limit(dsn: str, task: str, **what: Any) -> None:
    """Set a limit before any worker starts."""
    async with BackfillClient(dsn) as client:
        await client.set_limit(task, **what)


@pytest.mark.parametrize(("values", "jobs"), [(3, 240), (700, 1_400)])
async def test_each_value_keeps_to_the_limit(dsn: str, eventually: Any, values: int, jobs: int) -> None:
    """Two at once for each, and those without a value together, by 4 processes; all jobs are done."""
    await _limit(dsn, "limited_span", limit=Limit(2, by="value"))
    async with BackfillClient(dsn) as client, fleet_of(4, dsn, concurrency=8) as fleet:
        await client.enqueue_bulk(
            limited_span.job({"value": f"v{number % values}"} if number % 10 else {"seconds": 0.01})
            for number in range(jobs)
        )
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=120, moving=True)
        assert await fleet.stop() == [0] * 4
    assert max(most for _, most in await rows(dsn, MOST_OF_EACH)) <= 2
    assert await value(dsn, "select count(distinct job_id) from attempts where ended is not null") == jobs
    assert await nothing_locked(dsn) == []


async def test_a_rate_holds_for_each_value(dsn: str, eventually: Any) -> None:
    """Ten a second for each of three values: 30 a second together."""
    await _limit(dsn, "limited_span", rate=Rate(10, by="value"))
    async with BackfillClient(dsn) as client, fleet_of(2, dsn, concurrency=8) as fleet:
        await client.enqueue_bulk(limited_span.job({"value": f"v{number % 3}", "seconds": 0.0}) for number in range(90))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        assert await fleet.stop() == [0] * 2
    spans = await rows(dsn, "select extract(epoch from max(began) - min(began))::float8 from attempts group by value")
    for (seconds,) in spans:
        assert 2.75 <= seconds <= 2.9 + 1.5
    assert len(spans) == 3


@pytest.mark.parametrize(
    ("full", "jobs", "least"), [(20_000, 1_000, 0.25), pytest.param(100_000, 5_000, 0.8, marks=pytest.mark.long)]
)
async def test_jobs_of_a_full_value_do_not_hinder_others(
    dsn: str, eventually: Any, full: int, jobs: int, least: float
) -> None:
    """Behind many jobs of one value that is full, those of other values run at 0.8 of their pace at least.

    The short form asks for less, since it takes a second, beside other tests.
    """
    await _limit(dsn, "limited_span", limit=Limit(1, by="value"))

    async def pace(client: BackfillClient) -> float:
        left = await jobs_left(dsn)
        await client.enqueue_bulk(
            limited_span.job({"value": f"v{number % 97}", "seconds": 0.0}) for number in range(jobs)
        )
        begun = time.monotonic()
        await eventually(lambda: jobs_left(dsn), lambda now: now <= left, timeout=180, moving=True)
        return jobs / (time.monotonic() - begun)

    async with BackfillClient(dsn) as client, fleet_of(2, dsn, concurrency=8) as fleet:
        alone = max([await pace(client) for _ in range(3)])
        await client.enqueue(limited_span.job({"value": "full", "seconds": 100_000}))
        await client.enqueue_bulk(limited_span.job({"value": "full", "seconds": 0.0}) for _ in range(full))
        await eventually(lambda: value(dsn, "select count(*) from attempts where value = 'full'"), lambda now: now == 1)
        behind = max([await pace(client) for _ in range(3)])
        assert await value(dsn, "select count(*) from attempts where value = 'full'") == 1
        for worker in fleet.workers:
            await fleet.kill(worker)
    assert behind >= least * alone
