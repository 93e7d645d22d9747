"""How often a second something can be called."""

from __future__ import annotations

import time
from collections.abc import Callable


def call_rate(call: Callable[[], object], times: int) -> Callable[[], float]:
    """A side: calls a second."""

    def measure() -> float:
        call()
        began = time.perf_counter()
        for _ in range(times):
            call()
        return times / (time.perf_counter() - began)

    return measure
