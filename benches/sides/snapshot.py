"""A worker under an old snapshot: what its claims cost while the rows of all jobs that ran before stay where they were."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import psycopg
import uvloop

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.claims import NEVER
from backfill.storage.wire import Command, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

TASK: Final = "noop"
BATCH: Final = 500
_WAVE: Final = 10_000
_FLOORS: Final = 5
_HEADER, _ELEMENT = 20, 12


@dataclass(slots=True)
class Turns:
    """The turns that claimed.

    Attributes:
        claims: seconds of each turn that claimed as many as a claim may.
        full: seconds of all turns that looked from the very start.
        whole: seconds from the first turn to the last.
    """

    claims: list[float] = field(default_factory=list)
    full: float = 0.0
    whole: float = 0.0

    def tenth(self, *, last: bool) -> float:
        """What a claim cost in the first or the last tenth: the median, in milliseconds."""
        some = max(len(self.claims) // 10, 1)
        return median(self.claims[-some:] if last else self.claims[:some]) * 1000


@contextmanager
def _noted() -> Iterator[Turns]:
    """Have each turn's time noted."""
    turns, send, began = Turns(), Wire.send, time.perf_counter()

    async def noting(self: Wire, commands: Sequence[Command], *, timeout: float) -> list[PGresult]:
        before = time.perf_counter()
        results = await send(self, commands, timeout=timeout)
        seconds = time.perf_counter() - before
        for command, result in zip(commands, results, strict=True):
            if command.name.startswith(("backfill.claim.", "backfill.claim_parallel.")):
                turns.claims += [seconds] if result.ntuples == BATCH else []
                turns.full += seconds if _is_full(command) else 0.0
        return results

    with patch.object(Wire, "send", noting):
        yield turns
    turns.whole = time.perf_counter() - began


def _is_full(command: Command) -> bool:
    """Whether none of a look's spans has a floor."""
    floors = command.parameters[_FLOORS]
    assert isinstance(floors, bytes)
    never = NEVER.to_bytes(8, "big", signed=True)
    return all(floors[at + 4 : at + _ELEMENT] == never for at in range(_HEADER, len(floors), _ELEMENT))


def under_a_snapshot(dsn: str, jobs: int) -> Turns:
    """What claims cost while so many jobs pass, enqueued in waves, a transaction older than all of them being open."""
    logging.disable(logging.WARNING)

    async def run() -> Turns:
        ran, waiting_for, reached = 0, 0, asyncio.Event()
        registry: TaskRegistry[None] = TaskRegistry()

        @registry.task(TASK)
        async def handler(payload: dict[str, Any]) -> None:
            nonlocal ran
            del payload
            ran += 1
            if ran >= waiting_for:
                reached.set()

        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)])
        async with (
            await psycopg.AsyncConnection.connect(dsn) as old,
            BackfillClient(dsn) as client,
            WorkerRunner(config, registry),
        ):
            await old.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await old.execute("select count(*) from graphile_worker._private_jobs")
            with _noted() as turns:
                for first in range(0, jobs, _WAVE):
                    await client.enqueue_bulk(TASK, ({"user": user} for user in range(first, first + _WAVE)))
                    reached.clear()
                    waiting_for = first + _WAVE - BATCH
                    if ran < waiting_for:
                        await reached.wait()
            return turns

    return uvloop.run(run())
