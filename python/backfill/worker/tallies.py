"""Tallies: how attempts ended, by task and minute, in memory. What counts runs once a batch, a few lines a job."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backfill.counts import BUCKETS
from backfill.storage.counters import MinuteCounts
from backfill.worker.running import COMPLETED, GIVEN_BACK, Failed, Running, Snoozed

KEPT_MINUTES: Final = 24 * 60
"""What cannot be written for a day is lost: long before rows of its minute could be folded."""
_DONE, _FAILED, _RETRIED, _DEAD, _SNOOZED, _DISCARDED, _GIVEN_BACK, _WAIT_MICROS, _RUN_MICROS, _WRITTEN = range(10)
_WAIT: Final = 10
_RUN: Final = _WAIT + BUCKETS
_CELLS: Final = _RUN + BUCKETS
_LONGEST: Final = 2 ** (BUCKETS - 2) * 1000
"""Microseconds; what waited since minus infinity, too, has its place in the last bucket."""


class _Tasks(dict[str, list[int]]):
    """The cells of each task in a minute, made when first asked for.

    One list of integers a task: adding to an item of a list is the cheapest that there is.
    """

    def __missing__(self, task: str) -> list[int]:
        cells = self[task] = [0] * _CELLS
        return cells


@dataclass(frozen=True, slots=True)
class Change:
    """A task's counts of a minute that are not written yet, as they were when they were taken."""

    counts: MinuteCounts
    ended: int


class Tallies:
    """Counts ends of attempts, in the minute in which they were written, by the database's clock.

    A minute that is over is never counted in again, whatever the clock does.
    """

    def __init__(self) -> None:
        self._clock = time.time() - time.monotonic()
        self._minutes: dict[int, _Tasks] = {}
        self._minute = 0
        self._tasks = _Tasks()

    def set_clock(self, now: float, monotonic: float) -> None:
        """The database's time, in Unix seconds, when the monotonic clock was so far; this machine's until then."""
        self._clock = now - monotonic

    def count(self, batch: Iterable[Running], missing: Collection[int] = ()) -> None:
        """Count attempts whose ends are written, but for those of `missing` jobs."""
        minute = int((time.monotonic() + self._clock) // 60)
        if minute > self._minute:
            self._minute, self._tasks = minute, _Tasks()
            self._minutes[minute] = self._tasks
        tasks = self._tasks
        for running in batch:
            job = running.job
            if missing and job.id in missing:
                continue
            cells = tasks[job.task_identifier]
            ending = running.ending
            if ending is COMPLETED:
                cells[_DONE] += 1
            elif ending is GIVEN_BACK or ending is None:
                cells[_GIVEN_BACK] += 1
                continue
            elif isinstance(ending, Failed):
                cells[_FAILED] += 1
                last = ending.final or job.attempts >= job.max_attempts
                cells[_DEAD if last else _RETRIED] += 1
            else:
                cells[_SNOOZED if isinstance(ending, Snoozed) else _DISCARDED] += 1
            due, created = job.run_at_micros, job.created_at_micros
            waited = (job.locked_at_micros or 0) - (max(created, due))
            if not 0 <= waited < _LONGEST:
                waited = 0 if waited < 0 else _LONGEST
            ran = int((running.ended - running.began) * 1_000_000)
            if not 0 <= ran < _LONGEST:
                ran = 0 if ran < 0 else _LONGEST
            cells[_WAIT_MICROS] += waited
            cells[_RUN_MICROS] += ran
            cells[_WAIT + (waited // 1000).bit_length()] += 1
            cells[_RUN + (ran // 1000).bit_length()] += 1

    def changes(self, most: int) -> list[Change]:
        """What is not written yet, so many at most, the oldest first."""
        found = []
        for minute, tasks in self._minutes.items():
            for task, cells in tasks.items():
                ended = _ended(cells)
                if ended > cells[_WRITTEN]:
                    found.append(Change(_counts(minute, task, cells), ended))
                    if len(found) >= most:
                        return found
        return found

    def written(self, changes: Sequence[Change]) -> None:
        """Those are written; what is complete is let go."""
        for change in changes:
            tasks = self._minutes.get(change.counts["minute"], {})
            if change.counts["task"] in tasks:
                tasks[change.counts["task"]][_WRITTEN] = change.ended
        for minute in [minute for minute in self._minutes if minute < self._minute]:
            tasks = self._minutes[minute]
            for task in [task for task, cells in tasks.items() if _ended(cells) == cells[_WRITTEN]]:
                del tasks[task]
            if not tasks:
                del self._minutes[minute]

    def drop_old(self) -> int:
        """Let go of what is not written and over a day old; how many attempts that costs."""
        lost = 0
        for minute in [minute for minute in self._minutes if minute < self._minute - KEPT_MINUTES]:
            lost += sum(_ended(cells) - cells[_WRITTEN] for cells in self._minutes.pop(minute).values())
        return lost

    @property
    def pending(self) -> int:
        """How many attempts are counted and not written."""
        return sum(_ended(cells) - cells[_WRITTEN] for tasks in self._minutes.values() for cells in tasks.values())


def _ended(cells: list[int]) -> int:
    return cells[_DONE] + cells[_FAILED] + cells[_SNOOZED] + cells[_DISCARDED] + cells[_GIVEN_BACK]


def _counts(minute: int, task: str, cells: list[int]) -> MinuteCounts:
    return MinuteCounts(
        minute=minute,
        task=task,
        done=cells[_DONE],
        failed=cells[_FAILED],
        retried=cells[_RETRIED],
        dead=cells[_DEAD],
        snoozed=cells[_SNOOZED],
        discarded=cells[_DISCARDED],
        given_back=cells[_GIVEN_BACK],
        wait_seconds=cells[_WAIT_MICROS] / 1_000_000,
        run_seconds=cells[_RUN_MICROS] / 1_000_000,
        wait=_trimmed(cells[_WAIT:_RUN]),
        run=_trimmed(cells[_RUN:]),
    )


def _trimmed(buckets: list[int]) -> list[int]:
    """Buckets without the empty ones at their end."""
    while buckets and not buckets[-1]:
        buckets.pop()
    return buckets
