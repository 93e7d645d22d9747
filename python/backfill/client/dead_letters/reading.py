"""Dead letters, read: a page of them, one, all in figures, and grouped by how they failed."""

from __future__ import annotations

from typing import Final

from backfill.client.connect import ClientLife
from backfill.client.verbs import dead_letters as verbs
from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.storage.types import Connection

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
        return await self._run(verbs.list_dlq_jobs(filter, limit=limit, cursor=cursor), connection)

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
        return await self._run(verbs.get_dlq_job(id), connection)

    async def dlq_stats(self, *, connection: Connection | None = None) -> DlqStats:
        """All dead letters in figures."""
        return await self._run(verbs.dlq_stats(), connection)

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
        return await self._run(verbs.dlq_groups(task_identifier, limit=limit), connection)
