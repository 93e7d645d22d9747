"""What so many slots can do with a handler, when the next payload is always at hand."""

from __future__ import annotations

import asyncio
import time

import uvloop

from sides.ours import Counted, Handler


def slots_rate(handler: Handler, jobs: int, slots: int) -> float:
    """Jobs a second."""

    async def run() -> float:
        left, counted = iter(range(jobs)), Counted(handler, jobs)  # counted, as the worker's handler is

        async def slot() -> None:
            for number in left:
                await counted({"user": number})

        began = time.perf_counter()
        await asyncio.gather(*(slot() for _ in range(slots)))
        return jobs / (time.perf_counter() - began)

    return uvloop.run(run())
