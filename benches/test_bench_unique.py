"""What it costs to reserve a key, beside a key alone: ratios of one run, without a bound."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count
from statistics import median

import uvloop

from backfill import BackfillClient

CALLS = 400
ROUNDS = 7
DAY = timedelta(days=1)
Call = Callable[[str], Awaitable[object]]


async def _seconds(call: Call, keys: Callable[[], str]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await call(keys())
    return time.perf_counter() - began


def test_reserved_keys_beside_keys_alone(dsn: str) -> None:
    """The medians of some rounds, which take turns; no calls go together, and each commits by itself."""
    numbers = count()

    async def run() -> list[float]:
        async with BackfillClient(dsn, max_size=1, gather=False) as client:

            async def alone(key: str) -> object:
                return await client.enqueue("t", {"n": 1}, job_key=key)

            async def unique(key: str) -> object:
                return await client.enqueue("t", {"n": 1}, job_key=key, unique_for=DAY)

            def fresh() -> str:
                return f"k{next(numbers)}"

            await unique("kept")
            rounds = [
                (await _seconds(alone, fresh), await _seconds(unique, fresh), await _seconds(unique, lambda: "kept"))
                for _ in range(ROUNDS)
            ]
            return [median(times) / CALLS * 1_000 for times in zip(*rounds, strict=True)]

    alone, unique, kept = uvloop.run(run())
    print(
        f"a key alone {alone:.3f} ms; with unique_for {unique:.3f} ms, {unique / alone:.2f} times as long; "
        f"where it is kept {kept:.3f} ms, {kept / alone:.2f} times as long"
    )
