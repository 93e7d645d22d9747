"""Warns of jobs that wait in vain, since they are due and no live worker knows their task.

Only one worker of the fleet looks: each worker leaves it to a live worker with a smaller id, if that worker's protocol
is not older than its own. A worker of an older version may not know how to look, and would keep all others silent. The
worker that looks cannot see workers of other programs, so it takes a task for theirs while one of them holds a job of
it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from backfill.client.lent import ServicesClient
from backfill.counts import UnknownTask
from backfill.metrics.books import process_metrics
from backfill.metrics.catalogue import UNKNOWN_JOBS
from backfill.metrics.snapshot import Labels
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

FIRST_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 30.0
WARN_SECONDS: Final = 60.0
FULL_EVERY: Final = 20
"""One look in this many begins at the very start; the others begin where the last one that found nothing ended."""
SLACK_MICROS: Final = 250_000
"""How far a floor stays behind that place, since jobs are committed a little after the time in their row."""
_MOST_LEVELS: Final = 100
_LOOK_TIMEOUT: Final = 30.0
_NAMED: Final = 10


class UnknownTasks(Periodic):
    """Looks for such jobs every half minute, warns of them once a minute at most, and shows them in the metrics.

    After a warning it does not look for a minute, and the metrics show what was found last.

    Args:
        client: the services' client.
        worker: the worker's id.
    """

    def __init__(self, client: ServicesClient, *, worker: str) -> None:
        super().__init__(
            "unknown tasks", first=FIRST_SECONDS, interval=LOOK_SECONDS, timeout=_LOOK_TIMEOUT,
            complaint="jobs whose task no worker knows could not be looked for",
        )  # fmt: skip
        self._client = client
        self._worker = worker
        self._warned: float | None = None
        self._floors: dict[int, int] = {}
        self._known: str | None = None
        self._looks = 0
        self._books = process_metrics()
        self._shown: dict[Labels, float] = {}
        self._ends: list[Callable[[], None]] = []

    def _open(self) -> None:
        self._ends = [self._books.watch(UNKNOWN_JOBS, lambda: self._shown)]

    async def _close(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    async def _round(self) -> None:
        now = time.monotonic()
        if self._warned is not None and now - self._warned < WARN_SECONDS:
            return
        try:
            found = await self.look()
        except BaseException:
            self._shown = {}  # what was seen before may not be so any more
            raise
        self._shown = {(unknown.task,): float(unknown.jobs) for unknown in found}
        if found:
            self._warned = now
            logger.warning("%s", warning_of(found), extra={"tasks": [unknown.task for unknown in found]})

    async def look(self) -> list[UnknownTask]:
        """Look for such jobs behind the floors, or from the very start where what the fleet knows has changed."""
        self._looks += 1
        if self._looks % FULL_EVERY == 0:
            self._floors = {}
        found = await self._client.find_unknown_tasks(self._worker, self._floors)
        if self._floors and found.known != self._known:  # perhaps nobody knows the task of jobs before the floors now
            self._floors = {}
            found = await self._client.find_unknown_tasks(self._worker, {})
        self._known = found.known
        if found.tasks or not found.answered or not found.whole:
            self._floors = {}  # the next look counts these jobs again
        else:
            floor = found.due_before - SLACK_MICROS
            levels = list(dict.fromkeys([*found.levels, *self._floors]))[:_MOST_LEVELS]
            self._floors = dict.fromkeys(levels, floor)
        return found.tasks


def warning_of(found: Sequence[UnknownTask]) -> str:
    """The warning for some tasks, given with those that have most jobs first; it names the first ten."""
    named = ", ".join(_said(unknown) for unknown in found[:_NAMED])
    more = " and more" if len(found) > _NAMED else ""
    return (
        f"due jobs wait in vain, no live worker knows their task: {named}{more}. Start a worker that registers the "
        "task, or "
        "correct its name in the producer and remove the jobs (tasks of Node or Rust workers cannot be known here "
        "unless "
        "one of them holds a job of the task)"
    )


def _said(unknown: UnknownTask) -> str:
    count = f"{unknown.jobs:,}{'' if unknown.whole else '+'} {'job' if unknown.jobs == 1 else 'jobs'}"
    since = "" if unknown.oldest is None else f", due since {unknown.oldest:%Y-%m-%d %H:%M:%S} UTC"
    return f"{unknown.task!r} ({count}{since})"
