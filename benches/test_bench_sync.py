"""What the synchronous client adds to the driver's own call of the same statement: a ratio of one run, without a bound."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from backfill.storage.statements import render
from backfill.sync import Client
from backfill.sync.carrier import PsycopgCarrier

JOBS = 400
ROUNDS = 7


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(JOBS):
        call()
    return time.perf_counter() - began


def test_a_call_beside_the_drivers(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The medians of some rounds, which take turns; the driver sends what a call of the client was seen to send."""
    seen: list[tuple[str, str, Any]] = []
    run = PsycopgCarrier.run

    async def watched(self: Any, name: str, schema: str, parameters: Any = (), *, binary: bool = False) -> Any:
        seen.append((name, schema, parameters))
        return await run(self, name, schema, parameters, binary=binary)

    with Client(dsn) as client, psycopg.connect(dsn, autocommit=True) as connection:
        client.enqueue("t", {"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(PsycopgCarrier, "run", watched)
            client.enqueue("t", {"n": 1})
        [(name, schema, parameters)] = seen
        texts = [one.decode() if isinstance(one, bytes) else one for one in parameters]
        cursor = psycopg.RawCursor(connection)
        ours, bare = list[float](), list[float]()
        for _ in range(ROUNDS):
            bare.append(_seconds(lambda: cursor.execute(render(name, schema), texts)))
            ours.append(_seconds(lambda: client.enqueue("t", {"n": 1})))
    each = [statistics.median(some) / JOBS * 1_000 for some in (ours, bare)]
    print(f"Client.enqueue {each[0]:.3f} ms, the driver's call {each[1]:.3f} ms: {each[0] / each[1]:.2f} times as long")
