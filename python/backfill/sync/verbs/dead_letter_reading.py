"""Verbs that read dead letters: a page of them, one, statistics, and groups by how they failed.

Written by tools/sync_verbs.py from `client/dead_letters/reading.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from typing import Final

from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.storage.types import Lent
from backfill.sync.base import Verbs

_ANY: Final = DlqFilter()


class DeadLetterReading(Verbs):
    """The verbs that read dead letters: jobs that will not be tried again."""

    def list_dlq_jobs(
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
        answer: DlqJobList = self._run(
            self._verbs.list_dlq_jobs(filter, limit=limit, cursor=cursor, connection=connection)
        )
        return answer

    def get_dlq_job(self, id: int, *, connection: Lent | None = None) -> DlqJob | None:
        """Read one entry.

        Args:
            id: the entry's id.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The entry, or None if there is no entry with that id.

        Raises:
            InvalidJobError: `id` is not an id.
        """
        answer: DlqJob | None = self._run(self._verbs.get_dlq_job(id, connection=connection))
        return answer

    def dlq_stats(self, *, connection: Lent | None = None) -> DlqStats:
        """Read statistics of all dead letters."""
        answer: DlqStats = self._run(self._verbs.dlq_stats(connection=connection))
        return answer

    def dlq_groups(
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
        answer: list[DlqGroup] = self._run(self._verbs.dlq_groups(task_identifier, limit=limit, connection=connection))
        return answer
