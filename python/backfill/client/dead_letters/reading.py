"""Dead letters, read: a page of them, one, all in figures, and grouped by how they failed."""

from __future__ import annotations

from typing import Final

import orjson

from backfill.checks import check_int
from backfill.client.connect import ClientLife
from backfill.client.dead_letters.rows import entry, entry_id, filter_parameters
from backfill.client.execute import run, text
from backfill.client.pages import START, Place, cursor_of, place_of, time, whole
from backfill.client.prepare import Parameters
from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.storage.connection import Connection

PAGE_LIMIT: Final = 1_000
_ANY: Final = DlqFilter()


class DeadLetterReading(ClientLife):
    """The verbs that look at jobs which will not be tried again."""

    async def list_dlq_jobs(
        self,
        filter: DlqFilter = _ANY,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> DlqJobList:
        """A page of the dead letters that match, newest first.

        Args:
            filter: which; all if not given.
            limit: entries at most, 1 to 1,000.
            cursor: where the page begins: the one before's `cursor`.
            connection: a psycopg connection to read on; else one of the client's.

        Returns:
            The page, and how many match at all.

        Raises:
            InvalidJobError: a value out of range, or a cursor that is none.
        """
        check_int("limit", limit, range(1, PAGE_LIMIT + 1))
        parameters, place = filter_parameters(filter), place_of(cursor)
        async with self._connection(connection) as chosen:
            jobs, after = await self._page(chosen, parameters, limit, place)
            total = await run(chosen, "count_dead_letters", self._schema, parameters)
        return DlqJobList(jobs, whole(total, 0, 0), after, filter.by_text_alone)

    async def get_dlq_job(self, id: int, *, connection: Connection | None = None) -> DlqJob | None:
        """Read one entry.

        Args:
            id: the entry's id.
            connection: a psycopg connection to read on; else one of the client's.

        Returns:
            The entry, or None: there is none of that id.

        Raises:
            InvalidJobError: no id.
        """
        parameters = filter_parameters(_ANY, [entry_id(id)])
        async with self._connection(connection) as chosen:
            jobs, _ = await self._page(chosen, parameters, 1)
        return jobs[0] if jobs else None

    async def dlq_stats(self, *, connection: Connection | None = None) -> DlqStats:
        """All dead letters in figures."""
        async with self._connection(connection) as chosen:
            found = await run(chosen, "dead_letter_stats", self._schema)
        tasks = [(name, number) for name, number in orjson.loads(text(found, 0, 7) or "[]")]
        jobs, names, queues, requeued = (whole(found, 0, column) for column in range(4))
        failures = float(text(found, 0, 4) or 0)
        return DlqStats(jobs, names, queues, requeued, failures, time(found, 0, 5), time(found, 0, 6), tasks)

    async def dlq_groups(
        self, task_identifier: str | None = None, *, limit: int = 50, connection: Connection | None = None
    ) -> list[DlqGroup]:
        """The dead letters grouped by how they failed, the largest groups first.

        Args:
            task_identifier: those of one task; of all if not given.
            limit: groups at most, 1 to 1,000.
            connection: a psycopg connection to read on; else one of the client's.

        Raises:
            InvalidJobError: a value out of range.
        """
        check_int("limit", limit, range(1, PAGE_LIMIT + 1))
        task = DlqFilter(task_identifier=task_identifier).task_identifier
        async with self._connection(connection) as chosen:
            found = await run(chosen, "dead_letter_groups", self._schema, (task, str(limit)))
        return [
            DlqGroup(
                text(found, row, 0), text(found, row, 1), whole(found, row, 2), whole(found, row, 3), time(found, row, 4),
                time(found, row, 5), whole(found, row, 6), orjson.loads(text(found, row, 7) or "[]"),
            )
            for row in range(found.ntuples)
        ]  # fmt: skip

    async def _page(
        self,
        connection: Connection,
        filter: Parameters,
        limit: int,
        place: Place = START,
    ) -> tuple[list[DlqJob], str | None]:
        """Entries that match from a place on, and the cursor of the next page."""
        found = await run(connection, "list_dead_letters", self._schema, (*filter, *place, str(limit + 1)))
        jobs = [entry(found, row) for row in range(min(found.ntuples, limit))]
        return jobs, cursor_of(found, limit - 1, 23) if found.ntuples > limit else None
