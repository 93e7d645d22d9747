"""Verbs for counters, which say how attempts ended, by task, worker and time.

Written by tools/sync_verbs.py from `client/counters.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from datetime import datetime

from backfill.counts import Counts, Span
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class CounterVerbs(Verbs):
    """The verbs that read and fold counters."""

    def counters(
        self,
        *,
        task: str | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Span | None = None,
        by_worker: bool = False,
        fill: bool = False,
        connection: Lent | None = None,
    ) -> list[Counts]:
        """Count how attempts ended, by task and, if asked for, by time and worker; oldest first.

        Workers write their counts every 5 seconds. Counts older than 2 days are kept by the hour; counts older than 60
        days are kept by the day, without their workers. `Counts.span` says which of these it is.

        Args:
            task: count this task only; 1 to 128 characters.
            worker: count this worker only.
            since: count spans that begin at this time or later; aware.
            until: count spans that begin before this time; aware.
            by: give one `Counts` for each minute, hour or day, in UTC; one for all the time if not given.
            by_worker: whether to give one `Counts` for each worker.
            fill: whether to give every minute, hour or day from `since` on until `until` (until now, by this machine's
                clock, if not given), also those in which nothing ended; `by` and `since` are needed then. Spans are
                counted whole: those in which `since` and `until` lie, too. Each task that has counts in the range has
                all spans, and so has `task`. At most 20,000 spans.
            connection: a connection of yours to read on; if not given, one of the client's.

        Raises:
            InvalidJobError: a value is out of range, or `fill` is given without `by` or `since`.
        """
        answer: list[Counts] = self._run(
            self._verbs.counters(
                task=task,
                worker=worker,
                since=since,
                until=until,
                by=by,
                by_worker=by_worker,
                fill=fill,
                connection=connection,
            )
        )
        return answer

    def fold_counters(self) -> int:
        """Fold minutes over 2 days old into hours and hours over 60 days old into days, and delete days after 2 years.

        Workers do this at their start and once an hour; any number of them may do it at the same time.

        Returns:
            How many rows were folded or deleted.
        """
        answer: int = self._run(self._verbs.fold_counters())
        return answer
