"""How attempts ended, in figures: what the client's `counters` gives back.

A histogram's buckets are powers of two in milliseconds: the first holds what took less than 1 ms, the next what took
less than 2 ms, then 4 ms, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from backfill.checks import check_number

BUCKETS: Final = 42
"""The last one holds what took 2^40 ms, 35 years, or longer."""
Span = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted in buckets.

    Attributes:
        buckets: how many were under 1 ms, 2 ms, 4 ms ..., each without those of the buckets before it; empty ones at
            the end are left out.
        total: all of them together.
    """

    buckets: tuple[int, ...]
    total: timedelta

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    @property
    def mean(self) -> timedelta | None:
        """The mean; None where there are none."""
        return self.total / self.count if self.count else None

    def percentile(self, q: float) -> timedelta | None:
        """About how long `q` percent of them took at most; None where there are none.

        The bucket is exact, so the estimate is off by less than half or double; within it they are taken to lie evenly.

        Args:
            q: 0 to 100; 50 is the median.

        Raises:
            InvalidJobError: out of range.
        """
        check_number("q", q, 0, 100)
        wanted = self.count * q / 100
        below = 0
        for place, count in enumerate(self.buckets):
            if count and below + count >= wanted:
                low, high = (2.0 ** (place - 1) if place else 0.0), 2.0**place
                return timedelta(milliseconds=low + (high - low) * (wanted - below) / count)
            below += count
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How attempts of a task ended, within a span of time. An attempt is counted when its end is written.

    Attributes:
        task: the task's identifier.
        worker: the worker's id, where counts of each worker or of one were asked for; None for all, and for days, which
            keep no workers.
        started: the begin of the span, or of the first one that is in it where no spans were asked for.
        span: the coarsest of what was added up: minutes are folded to hours and days with age.
        done: attempts that ended well.
        failed: attempts that failed: those retried and those dead.
        retried: failed attempts that are followed by another.
        dead: failed attempts that were the last: their jobs are dead letters.
        snoozed: attempts that put their job off.
        discarded: attempts whose handler ended the job without failure.
        given_back: attempts that were undone, by a worker that stops.
        wait: how long jobs were due before they were claimed; of all attempts but those given back.
        run: how long attempts took; of the same.
    """

    task: str
    worker: str | None
    started: datetime
    span: Span
    done: int
    failed: int
    retried: int
    dead: int
    snoozed: int
    discarded: int
    given_back: int
    wait: Histogram
    run: Histogram


@dataclass(frozen=True, slots=True)
class UnknownTask:
    """A task with due jobs that no live worker of ours knows.

    Attributes:
        task: the task's identifier.
        jobs: how many of its jobs are due.
        oldest: since when the first is; None for what no datetime can hold.
        whole: whether all jobs that are due were looked at; else there may be more of it.
    """

    task: str
    jobs: int
    oldest: datetime | None
    whole: bool


@dataclass(frozen=True, slots=True)
class UnknownFound:
    """What one look for unknown tasks found, and what it learnt for the next one.

    Attributes:
        tasks: those with due jobs that no live worker of ours knows.
        answered: whether the worker that asked is the one that speaks for all; the others find nothing.
        whole: whether all jobs that are due were looked at.
        due_before: the time before which jobs were looked at, in Unix microseconds.
        levels: the priorities that jobs wait in.
        known: what the live workers know, as a sum that changes with it.
    """

    tasks: list[UnknownTask]
    answered: bool
    whole: bool
    due_before: int
    levels: list[int]
    known: str | None
