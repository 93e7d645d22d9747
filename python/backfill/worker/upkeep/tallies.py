"""Tallies: counts in memory how attempts ended, by task and minute.

Attempts are counted a batch at a time. Each step goes over the whole batch or sorts it, so that most of the work is
done in C; this takes a third of the time of a loop over the attempts.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from backfill.counts import BUCKETS
from backfill.storage.attempts import Attempt
from backfill.storage.counters import MinuteCounts
from backfill.worker.execution.endings import COMPLETED, was_last
from backfill.worker.execution.held_job import HeldJob

N = TypeVar("N", int, float)

KEPT_MINUTES: Final = 24 * 60
"""Minutes after which counts that could not be written are dropped: a day, long before their rows would be folded."""
_MANY: Final = 64
_STEP: Final = 8
"""Where more than `_MANY` ends were written at once, each eighth job's waiting time stands for its neighbours' as well.

To read the times of every job would cost too much.
"""
_MICROS: Final = tuple(1000 * 2**place for place in range(BUCKETS - 1))
_SECONDS: Final = tuple(micros / 1_000_000 for micros in _MICROS)
"""The upper bounds of the buckets, in microseconds and in seconds; the last bucket has none."""


@dataclass(slots=True, eq=False)
class Tally:
    """A task's counts of a minute.

    Attributes:
        wait_micros: the sum of the times for which jobs were due before they were claimed.
        run_seconds: the sum of the times that attempts took.
        written: how many of its ends are written to the database.
    """

    done: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    snoozed: int = 0
    discarded: int = 0
    given_back: int = 0
    wait_micros: int = 0
    run_seconds: float = 0.0
    wait: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    run: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    written: int = 0

    @property
    def ended(self) -> int:
        """How many ends it counts."""
        return self.done + self.failed + self.snoozed + self.discarded + self.given_back

    def add(self, batch: Sequence[HeldJob]) -> None:
        """Count the ends of a batch of attempts of its task."""
        endings = [running.ending for running in batch]
        done = endings.count(COMPLETED)
        self.done += done
        if done < len(endings):
            batch = self._add_others(batch)
            if not batch:
                return
        # There may be thousands a second, settled by the hundred. Jobs that were claimed together waited about as long.
        step = _STEP if len(batch) > _MANY else 1
        whole = len(batch) - len(batch) % step
        self._add_waits(batch[:whole:step], step)
        if whole < len(batch):
            self._add_waits(batch[whole:], 1)
        runs = [running.ended - running.slot_taken_at for running in batch]
        self.run_seconds += distribute(runs, _SECONDS, self.run)

    def _add_waits(self, batch: Sequence[HeldJob], weight: int) -> None:
        """Add how long jobs have waited since they were both due and added; each counts for `weight` jobs."""
        waits = [
            (running.job.locked_at_micros or 0)
            - (due if (due := running.job.run_at_micros) > (made := running.job.created_at_micros) else made)
            for running in batch
        ]
        self.wait_micros += distribute(waits, _MICROS, self.wait, weight) * weight

    def counts(self, minute: int, task: str) -> MinuteCounts:
        """The counts in the form in which they are written."""
        return MinuteCounts(
            minute=minute,
            task=task,
            done=self.done,
            failed=self.failed,
            retried=self.retried,
            dead=self.dead,
            snoozed=self.snoozed,
            discarded=self.discarded,
            given_back=self.given_back,
            wait_seconds=self.wait_micros / 1_000_000,
            run_seconds=self.run_seconds,
            wait=_trimmed(self.wait),
            run=_trimmed(self.run),
        )

    def _add_others(self, batch: Sequence[HeldJob]) -> Sequence[HeldJob]:
        """Count all ends but the completed ones, which are counted already; return the attempts for the histograms."""
        ended = [(running, running.ending) for running in batch if running.ending is not None]
        kinds = Counter(type(ending) for _, ending in ended if ending is not COMPLETED)
        for kind, number in kinds.items():
            setattr(self, kind.counted, getattr(self, kind.counted) + number)
            if kind.may_be_last:
                dead = sum(was_last(running, ending) for running, ending in ended if type(ending) is kind)
                self.dead += dead
                self.retried += number - dead
        if any(kind.undone for kind in kinds):
            return [running for running, ending in ended if not ending.undone]
        return batch


@dataclass(frozen=True, slots=True)
class Change:
    """A task's counts of a minute that are not written yet, as they stood when the change was made."""

    counts: MinuteCounts
    ended: int


class Tallies:
    """Counts ends of attempts, in the minute in which they were written, by the database's clock.

    No end is counted in a minute that is over, whatever the clock does, so a minute can be dropped once it is written.
    """

    def __init__(self) -> None:
        self._clock = time.time() - time.monotonic()
        self._minutes: dict[int, dict[str, Tally]] = {}
        self._minute = 0

    def set_clock(self, now: float, monotonic: float) -> None:
        """Set the database's time, in Unix seconds, at a monotonic time; before that this machine's time is used."""
        self._clock = now - monotonic

    @property
    def clock(self) -> float:
        """The database's clock less this process's monotonic clock, in seconds."""
        return self._clock

    def count(self, batch: Sequence[HeldJob], missing: Collection[Attempt] = ()) -> None:
        """Count attempts whose ends are written, but for the `missing` ones."""
        if missing:
            batch = [running for running in batch if running not in missing]
        if not batch:
            return
        self._minute = max(self._minute, int((time.monotonic() + self._clock) // 60))
        names = [running.job.task_identifier for running in batch]
        if names.count(names[0]) == len(names):
            self._tally(names[0]).add(batch)
            return
        groups: dict[str, list[HeldJob]] = {name: [] for name in names}
        for name, running in zip(names, batch, strict=True):
            groups[name].append(running)
        for name, group in groups.items():
            self._tally(name).add(group)

    def changes(self, most: int) -> list[Change]:
        """The changes that are not written yet, at most `most`, the oldest first."""
        found = []
        for minute, tasks in self._minutes.items():
            for task, tally in tasks.items():
                if tally.ended > tally.written:
                    found.append(Change(tally.counts(minute, task), tally.ended))
                    if len(found) >= most:
                        return found
        return found

    def written(self, changes: Sequence[Change]) -> None:
        """Note that changes are written, and drop the minutes that are over and written as a whole."""
        for change in changes:
            tally = self._minutes.get(change.counts["minute"], {}).get(change.counts["task"])
            if tally is not None:
                tally.written = change.ended
        for minute in [minute for minute in self._minutes if minute < self._minute]:
            left = {task: tally for task, tally in self._minutes[minute].items() if tally.ended > tally.written}
            if left:
                self._minutes[minute] = left
            else:
                del self._minutes[minute]

    def drop_old(self) -> int:
        """Drop counts that are not written and over a day old; return how many attempts are lost with them."""
        lost = 0
        for minute in [minute for minute in self._minutes if minute < self._minute - KEPT_MINUTES]:
            lost += sum(tally.ended - tally.written for tally in self._minutes.pop(minute).values())
        return lost

    @property
    def pending(self) -> int:
        """How many attempts are counted and not written yet."""
        return sum(tally.ended - tally.written for tasks in self._minutes.values() for tally in tasks.values())

    def _tally(self, task: str) -> Tally:
        tasks = self._minutes.setdefault(self._minute, {})
        tally = tasks.get(task)
        if tally is None:
            tally = tasks[task] = Tally()
        return tally


def distribute(values: list[N], bounds: Sequence[N], buckets: list[int], weight: int = 1) -> N:
    """Add each value `weight` times to the buckets that end at the bounds; return the values' sum.

    Values below zero count as zero, those beyond the last bound as that bound.
    """
    least, most, count = min(values), max(values), len(values)
    if least < 0 or most >= bounds[-1]:  # claimed while its producer's transaction was open, or due since -infinity
        values = [bounds[0] * 0 if value < 0 else min(value, bounds[-1]) for value in values]
        least, most = min(values), max(values)
    first = bisect_right(bounds, least)
    if first == len(bounds) or most < bounds[first]:  # all in one bucket, as with many no-ops or with a backlog
        buckets[first] += count * weight
        return sum(values[1:], values[0])
    values.sort()
    start = 0
    while start < count:
        place = bisect_right(bounds, values[start])
        end = bisect_left(values, bounds[place], start) if place < len(bounds) else count
        buckets[place] += (end - start) * weight
        start = end
    return sum(values[1:], values[0])


def _trimmed(buckets: list[int]) -> list[int]:
    """Buckets without the empty ones at their end."""
    last = len(buckets)
    while last and not buckets[last - 1]:
        last -= 1
    return buckets[:last]
