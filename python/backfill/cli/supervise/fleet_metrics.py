"""The metrics of a fleet of worker processes, as one address tells them for all of them.

Each process tells its metrics every two seconds, at its end, and when it is asked. Those of a process that has ended
are kept, so no counter goes down where a process is started anew. Of a process that is killed, what it had not told is
lost. Which tasks have series of their own is decided once, when they are first told of: otherwise a task could become
`other` when a process ends, and its counters would go down.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

from backfill.cli.supervise.child import WorkerChild
from backfill.metrics.books import process_metrics
from backfill.metrics.snapshot import Snapshot

ANSWER_SECONDS: Final = 0.5
"""How long the processes have to answer; one whose handler holds the interpreter is shown as it told last."""
UNHEARD_SECONDS: Final = 20.0
"""After so long without a word of a process its gauges are not shown: others have given it up, and do what it did."""


class FleetMetrics:
    """Adds up the metrics of the processes that run, of those that have ended, and of this process.

    Args:
        loop: the supervisor's event loop, on which the processes are asked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._past = Snapshot()  # its tasks are those that have series of their own here, once and for all
        self._latest: dict[WorkerChild, Snapshot] = {}
        self._heard_at: dict[WorkerChild, float] = {}
        self._awaited: set[WorkerChild] = set()
        self._silent: set[WorkerChild] = set()
        self._news = threading.Condition()

    def heard(self, child: WorkerChild, snapshot: Snapshot) -> None:
        """Take in what a process tells."""
        with self._news:
            self._latest[child], self._heard_at[child] = snapshot, time.monotonic()
            self._awaited.discard(child)
            self._silent.discard(child)
            self._news.notify_all()

    def ended(self, child: WorkerChild) -> None:
        """Keep the counts of a process that has ended."""
        with self._news:
            last = self._latest.pop(child, None)
            self._heard_at.pop(child, None)
            if last is not None:
                self._past.add(last, ended=True)
            self._awaited.discard(child)
            self._silent.discard(child)
            self._news.notify_all()

    def snapshot(self) -> Snapshot:
        """Ask all processes, wait for their answers up to half a second, and add everything up; not on the loop."""
        with self._news:
            asked = list(self._latest)
            self._awaited = self._latest.keys() - self._silent
        try:
            self._loop.call_soon_threadsafe(_ask, asked)
        except RuntimeError:
            asked = []  # the loop is closed, since the supervisor ends
        own = process_metrics().snapshot()
        with self._news:
            if asked:
                self._news.wait_for(lambda: not self._awaited, ANSWER_SECONDS)
                # Nobody waits for them again before they have told something: the probes come to the same thread.
                self._silent |= self._awaited
            total = Snapshot(tasks=self._past.tasks)
            total.add(self._past)
            fresh = time.monotonic() - UNHEARD_SECONDS
            for child, snapshot in self._latest.items():
                total.add(snapshot, ended=self._heard_at[child] < fresh)
            total.add(own)
            return total


def _ask(children: list[WorkerChild]) -> None:
    for child in children:
        child.ask()
