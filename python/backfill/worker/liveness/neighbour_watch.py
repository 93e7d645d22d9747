"""The neighbour watch: looks at the processes of the other workers on this machine once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from backfill.storage.workers import Around
from backfill.worker.liveness.neighbours import Neighbours
from backfill.worker.liveness.places import Place
from backfill.worker.service import Service, wait_for_event

_EVERY_SECONDS: Final = 1.0


class NeighbourWatch(Service):
    """Tells of neighbours that are gone. It sleeps where there are no neighbours.

    Args:
        neighbours: the other workers on this machine.
        gone: called with the places of workers that are gone for certain.
    """

    def __init__(self, neighbours: Neighbours, *, gone: Callable[[Iterable[Place]], None]) -> None:
        super().__init__("neighbour watch")
        self._neighbours = neighbours
        self._gone = gone
        self._appeared = asyncio.Event()

    @property
    def surroundings(self) -> str | None:
        """What the place of a neighbour has in common with this worker's, as JSON; None where it cannot be told."""
        return self._neighbours.surroundings

    def see(self, around: Around, now: float) -> None:
        """Take in a look around, which was asked for at this time in monotonic seconds."""
        if self._neighbours.see(around, now):
            self._appeared.set()

    def held_back(self, worker: str) -> bool:
        """Whether a worker's jobs must wait although it is dead, since a child that runs one is still there."""
        return self._neighbours.held_back(worker)

    async def _run(self) -> None:
        await self._until_stopped(self._watch())

    async def _watch(self) -> None:
        while True:
            if not self._neighbours:
                await self._appeared.wait()
            self._appeared.clear()
            if gone := self._neighbours.gone(time.monotonic()):
                self._gone(gone)
            await wait_for_event(self._appeared, _EVERY_SECONDS)
