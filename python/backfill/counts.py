"""How attempts ended, in figures: the types that the client's `counters` returns.

The bounds of a histogram's buckets are powers of two in milliseconds: the first bucket holds what took less than 1 ms,
the next what took less than 2 ms, then 4 ms, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from backfill.checks import check_number

BUCKETS: Final = 42
"""The number of buckets; the last one holds what took 2^40 ms (35 years) or longer."""
Span = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations that are counted in buckets.

    Attributes:
        buckets: how many durations were under 1 ms, 2 ms, 4 ms ...; each bucket leaves out what the buckets before it
            count. Empty buckets at the end are left out.
        total: the sum of all durations.
    """

    buckets: tuple[int, ...]
    total: timedelta

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.buckets)

    @property
    def mean(self) -> timedelta | None:
        """The mean duration; None if none was counted."""
        return self.total / self.count if self.count else None

    @property
    def p50(self) -> timedelta | None:
        """The median, as `percentile` estimates it; None if none was counted."""
        return self.percentile(50)

    @property
    def p95(self) -> timedelta | None:
        """The duration that about 95 percent do not exceed, as `percentile` estimates it; None if none was counted."""
        return self.percentile(95)

    @property
    def p99(self) -> timedelta | None:
        """The duration that about 99 percent do not exceed, as `percentile` estimates it; None if none was counted."""
        return self.percentile(99)

    def percentile(self, q: float) -> timedelta | None:
        """The duration that about `q` percent do not exceed; None if none was counted.

        The bucket is exact, so the estimate lies between half and double the true value. Within the bucket the
        durations are assumed to be spread evenly.

        Args:
            q: 0 to 100; 50 is the median.

        Raises:
            InvalidJobError: `q` is out of range.
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
    """How the attempts of a task ended within a span of time; an attempt is counted when its end is written.

    Attributes:
        task: the task's identifier.
        worker: the worker's id, if the counts of one worker or of each worker were asked for. None for the counts of
            all workers together, and for days, whose rows do not keep the worker.
        started: when the span began. If no spans were asked for, when the first span in the sum began.
        span: the coarsest span in the sum: minutes are folded into hours, and hours into days, as they age.
        done: attempts that ended well.
        failed: attempts that failed: the sum of `retried` and `dead`.
        retried: failed attempts that are followed by another.
        dead: failed attempts that were the last: their jobs are dead letters.
        snoozed: attempts that put their job off by `Snooze`.
        discarded: attempts whose handler ended the job without failure.
        given_back: attempts that a stopping worker undid.
        wait: how long jobs were due before they were claimed, for all attempts except those given back.
        run: how long attempts took, for all attempts except those given back.
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
        oldest: when the first of them became due; None if no datetime can hold that time.
        whole: whether all due jobs were looked at; if not, there may be more jobs of this task.
    """

    task: str
    jobs: int
    oldest: datetime | None
    whole: bool


@dataclass(frozen=True, slots=True)
class UnknownFound:
    """What one search for unknown tasks found, and what it learnt for the next search.

    Attributes:
        tasks: the tasks with due jobs that no live worker of ours knows.
        answered: whether the worker that asked is the one that searches for the whole fleet; other workers get nothing.
        whole: whether all due jobs were looked at.
        due_before: jobs that were due before this time were looked at; in Unix microseconds.
        levels: the priorities of the jobs that wait.
        known: a checksum of the tasks that live workers know; it changes when those tasks change.
    """

    tasks: list[UnknownTask]
    answered: bool
    whole: bool
    due_before: int
    levels: list[int]
    known: str | None
