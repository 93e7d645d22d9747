"""Counters: how attempts ended, by task, worker and time."""

from __future__ import annotations

from datetime import datetime

from backfill.client.connect import ClientLife
from backfill.client.verbs import counters as verbs
from backfill.counts import Counts, Span
from backfill.storage.types import Connection


class CounterVerbs(ClientLife):
    """The verbs for counters."""

    async def counters(
        self,
        *,
        task: str | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Span | None = None,
        by_worker: bool = False,
        connection: Connection | None = None,
    ) -> list[Counts]:
        """How attempts ended, by task and, where it is asked for, by time and worker; oldest first.

        Workers write their counts every 5 seconds. What is older than 2 days is there by the hour, and after 60 days by
        the day and without its workers: `Counts.span` says so.

        Args:
            task: of this task only, 1 to 128 characters.
            worker: of this worker only.
            since: spans that begin at this time or later; aware.
            until: spans that begin before this time; aware.
            by: one `Counts` a minute, hour or day, in UTC; one for all the time if not given.
            by_worker: one `Counts` a worker.
            connection: a psycopg connection to read on; else one of the client's.

        Raises:
            InvalidJobError: a value out of range.
        """
        verb = verbs.counters(task=task, worker=worker, since=since, until=until, by=by, by_worker=by_worker)
        return await self._run(verb, connection)

    async def fold_counters(self) -> int:
        """Fold minutes that are over 2 days old to hours, hours over 60 days to days, and delete days after 2 years.

        Workers do this at their start and hourly; any number may at once.

        Returns:
            How many rows were folded or deleted.
        """
        return await self._run_apart(verbs.fold_counters())
