"""Tallies: how attempts ended, by task and minute, in memory.

They are counted a batch at a time, line by line over all of it and by sorting, so that most of the work is done in C: a
third of what a loop over the attempts takes.
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
"""What cannot be written for a day is lost: long before rows of its minute could be folded."""
_MANY: Final = 64
_STEP: Final = 8
"""Of more ends than those, written at once, each eighth's waiting stands for its neighbours': a look at a job's times costs."""
_MICROS: Final = tuple(1000 * 2**place for place in range(BUCKETS - 1))
_SECONDS: Final = tuple(micros / 1_000_000 for micros in _MICROS)
"""Where buckets end, in microseconds and in seconds; the last has no end."""


@dataclass(slots=True, eq=False)
class Tally:
    """A task's counts of a minute.

    Attributes:
        wait_micros: how long jobs were due before they were claimed, all together.
        run_seconds: how long attempts took, all together.
        written: how many ends of it are written.
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
        """Count ends of its task."""
        endings = [running.ending for running in batch]
        done = endings.count(COMPLETED)
        self.done += done
        if done < len(endings):
            batch = self._add_others(batch)
            if not batch:
                return
        # Thousands a second, settled hundreds at a time: what was claimed together has waited about as long.
        step = _STEP if len(batch) > _MANY else 1
        whole = len(batch) - len(batch) % step
        self._add_waits(batch[:whole:step], step)
        if whole < len(batch):
            self._add_waits(batch[whole:], 1)
        runs = [running.ended - running.slot_taken_at for running in batch]
        self.run_seconds += distribute(runs, _SECONDS, self.run)

    def _add_waits(self, batch: Sequence[HeldJob], weight: int) -> None:
        """Add how long jobs have waited since they were due and there, each for as many jobs as its weight."""
        waits = [
            (running.job.locked_at_micros or 0)
            - (due if (due := running.job.run_at_micros) > (made := running.job.created_at_micros) else made)
            for running in batch
        ]
        self.wait_micros += distribute(waits, _MICROS, self.wait, weight) * weight

    def counts(self, minute: int, task: str) -> MinuteCounts:
        """As they are written."""
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
        """Count ends by their kinds, but for those that are counted already; the attempts that the histograms show."""
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
    """A task's counts of a minute that are not written yet, as they were when they were taken."""

    counts: MinuteCounts
    ended: int


class Tallies:
    """Counts ends of attempts, in the minute in which they were written, by the database's clock.

    A minute that is over is never counted in again, whatever the clock does: so it can be let go once it is written.
    """

    def __init__(self) -> None:
        self._clock = time.time() - time.monotonic()
        self._minutes: dict[int, dict[str, Tally]] = {}
        self._minute = 0

    def set_clock(self, now: float, monotonic: float) -> None:
        """The database's time, in Unix seconds, when the monotonic clock was so far; this machine's until then."""
        self._clock = now - monotonic

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
        """What is not written yet, so many at most, the oldest first."""
        found = []
        for minute, tasks in self._minutes.items():
            for task, tally in tasks.items():
                if tally.ended > tally.written:
                    found.append(Change(tally.counts(minute, task), tally.ended))
                    if len(found) >= most:
                        return found
        return found

    def written(self, changes: Sequence[Change]) -> None:
        """Those are written; what is complete is let go."""
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
        """Let go of what is not written and over a day old; how many attempts that costs."""
        lost = 0
        for minute in [minute for minute in self._minutes if minute < self._minute - KEPT_MINUTES]:
            lost += sum(tally.ended - tally.written for tally in self._minutes.pop(minute).values())
        return lost

    @property
    def pending(self) -> int:
        """How many attempts are counted and not written."""
        return sum(tally.ended - tally.written for tasks in self._minutes.values() for tally in tasks.values())

    def _tally(self, task: str) -> Tally:
        tasks = self._minutes.setdefault(self._minute, {})
        tally = tasks.get(task)
        if tally is None:
            tally = tasks[task] = Tally()
        return tally


def distribute(values: list[N], bounds: Sequence[N], buckets: list[int], weight: int = 1) -> N:
    """Add values to the buckets that end at the bounds, each so many times; their sum. Below zero is zero."""
    least, most, count = min(values), max(values), len(values)
    if least < 0 or most >= bounds[-1]:  # claimed while its producer's transaction was open; due since minus infinity
        values = [bounds[0] * 0 if value < 0 else min(value, bounds[-1]) for value in values]
        least, most = min(values), max(values)
    first = bisect_right(bounds, least)
    if first == len(bounds) or most < bounds[first]:  # of many no-ops, or of a backlog, all are in one bucket
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
