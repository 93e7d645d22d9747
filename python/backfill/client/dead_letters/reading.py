"""Verbs that read dead letters: a page of them, one, statistics, and groups by how they failed."""

from __future__ import annotations

from typing import Final

from backfill.client.connect import ClientLife
from backfill.client.metering import count_read, note_size
from backfill.client.verbs import dead_letters as verbs
from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.storage.types import Lent

_ANY: Final = DlqFilter()


class DeadLetterReading(ClientLife):
    """The verbs that read dead letters: jobs that will not be tried again."""

    async def list_dlq_jobs(
        self,
        filter: DlqFilter = _ANY,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: Lent | None = None,
    ) -> DlqJobList:
        """Read a page of the dead letters that match a filter, newest first.

        Args:
            filter: which dead letters; all if not given.
            limit: the largest number of entries on the page, 1 to 1,000.
            cursor: where the page begins: the `cursor` of the page before.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The page, and how many entries match in all.

        Raises:
            InvalidJobError: a value is out of range, or the cursor is not one that this verb gave.
        """
        page = await self._run(verbs.list_dlq_jobs(filter, limit=limit, cursor=cursor), connection)
        count_read(page.jobs)
        return page

    async def get_dlq_job(self, id: int, *, connection: Lent | None = None) -> DlqJob | None:
        """Read one entry.

        Args:
            id: the entry's id.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The entry, or None if there is no entry with that id.

        Raises:
            InvalidJobError: `id` is not an id.
        """
        entry = await self._run(verbs.get_dlq_job(id), connection)
        count_read([] if entry is None else [entry])
        return entry

    async def dlq_stats(self, *, connection: Lent | None = None) -> DlqStats:
        """Read statistics of all dead letters."""
        return note_size(await self._run(verbs.dlq_stats(), connection))

    async def dlq_groups(
        self, task_identifier: str | None = None, *, limit: int = 50, connection: Lent | None = None
    ) -> list[DlqGroup]:
        """Read the dead letters grouped by how they failed, the largest groups first.

        Args:
            task_identifier: group the dead letters of this task only; those of all tasks if not given.
            limit: the largest number of groups, 1 to 1,000.
            connection: a connection of yours to read on; if not given, one of the client's.

        Raises:
            InvalidJobError: a value is out of range.
        """
        return await self._run(verbs.dlq_groups(task_identifier, limit=limit), connection)
