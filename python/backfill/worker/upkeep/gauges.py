"""Gauges: shows what a running worker has now, and, in one worker of the fleet, what waits in the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from backfill.client.lent import ServicesClient
from backfill.metrics.books import process_metrics
from backfill.metrics.catalogue import DEPTH, DLQ_SIZE, OLDEST_DUE, OLDEST_SNAPSHOT
from backfill.metrics.snapshot import Labels
from backfill.worker.lanes.lane import Lane
from backfill.worker.liveness.health import Pulse
from backfill.worker.upkeep.metering import watch_worker
from backfill.worker.upkeep.periodic import Periodic

FIRST_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 15.0
"""How often one worker of the fleet looks at the queue."""
UNREAD_SECONDS: Final = 120.0
"""After so long without a reader nobody looks at the queue until there is one again."""
_LOOK_TIMEOUT: Final = 5.0


class Gauges(Periodic):
    """Shows a worker's gauges while it runs, and looks at the queue every 15 seconds while metrics are read.

    Only the live worker with the smallest id looks, so the values of a fleet can be added up. Another one shows nothing
    of the queue. A look that takes over 5 seconds is given up, and the values of the last one are shown no longer.

    Args:
        client: the services' client.
        worker: returns the worker's id.
        lanes: returns the worker's lanes.
        pulse: what is known about the worker's health.
    """

    def __init__(
        self, client: ServicesClient, *, worker: Callable[[], str], lanes: Callable[[], Iterable[Lane]], pulse: Pulse
    ) -> None:
        super().__init__(
            "gauges", first=FIRST_SECONDS, interval=LOOK_SECONDS, timeout=_LOOK_TIMEOUT,
            complaint="the queue could not be looked at for the metrics",
        )  # fmt: skip
        self._client = client
        self._worker = worker
        self._lanes = lanes
        self._pulse = pulse
        self._books = process_metrics()
        self._depth: dict[Labels, float] = {}
        self._oldest: dict[Labels, float] = {}
        self._snapshot: dict[Labels, float] = {}
        self._ends: list[Callable[[], None]] = []

    def _open(self) -> None:
        self._ends = [
            watch_worker(self._lanes, self._pulse, self._books),
            self._books.watch(DEPTH, lambda: self._depth),
            self._books.watch(OLDEST_DUE, lambda: self._oldest),
            self._books.watch(OLDEST_SNAPSHOT, lambda: self._snapshot),
        ]

    async def _close(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    async def _round(self) -> None:
        if not self._books.wanted or self._books.seconds_unread > UNREAD_SECONDS:
            self._forget()
            return
        try:
            found = await self._client.look_at_queue(self._worker())
            snapshot = 0.0 if found is None else await self._client.oldest_snapshot()
        except BaseException:
            self._forget()  # what was seen before may not be so any more
            raise
        if found is None:
            self._forget()
            return
        self._depth = {(one.state, one.task): float(one.jobs) for one in found.depth}
        self._oldest = {(): found.oldest_seconds}
        self._snapshot = {(): snapshot}
        self._books.set(DLQ_SIZE, {(task,): float(number) for task, number in found.dead_letters.items()})

    def _forget(self) -> None:
        """Show nothing of the queue until the next look."""
        self._depth, self._oldest, self._snapshot = {}, {}, {}
