"""Upkeep: the verbs that workers alone call, by which the fleet keeps counters, locks and partitions in order.

They are no verbs of the public client; `client/lent.py` gives them to the client of a worker's services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from backfill.client.connect import ClientLife
from backfill.client.verbs import cleanup as verbs
from backfill.client.verbs.cleanup import ReleasedLocks
from backfill.client.verbs.counters import find_unknown_tasks, write_counters
from backfill.client.verbs.ends import tend_ends
from backfill.client.verbs.recovery import DEAD_AFTER
from backfill.counts import UnknownFound, UnknownTask
from backfill.storage.counters import MinuteCounts


class UpkeepVerbs(ClientLife):
    """The verbs that workers alone call."""

    async def write_counters(self, worker: str, counts: Sequence[MinuteCounts]) -> float:
        """Write a worker's counts of its minutes as they stand: what workers do every 5 seconds.

        Args:
            worker: the worker's id.
            counts: each of its minutes since the last call, whole, and not what was added to it.

        Returns:
            The database's time, in Unix seconds.
        """
        return await self._run(write_counters(worker, counts))

    async def unknown_tasks(self, worker: str) -> list[UnknownTask]:
        """Tasks with due jobs that no live worker of ours knows, eleven at most, those with most jobs first.

        Args:
            worker: who asks; only the live worker with the smallest id gets an answer, so that one speaks for all;
                those whose protocol is older than its own do not count.
        """
        return (await self.find_unknown_tasks(worker, {})).tasks

    async def find_unknown_tasks(self, worker: str, floors: Mapping[int, int]) -> UnknownFound:
        """Look for such tasks from floors on; what workers do every half minute.

        Args:
            worker: who asks, as for `unknown_tasks`.
            floors: for each priority of which something is known, the run_at at which the look begins, in Unix
                microseconds; other priorities are looked at whole.
        """
        return await self._run(find_unknown_tasks(worker, floors))

    async def release_foreign_locks(
        self,
        *,
        queues: timedelta | None,
        jobs: timedelta | None,
        gone_for: timedelta = DEAD_AFTER,
        alone: bool = False,
    ) -> ReleasedLocks:
        """Unlock what holders have locked that are no workers of ours: what workers do now and then.

        Args:
            queues: the age of queues' locks; None leaves them.
            jobs: the age of jobs' locks; None leaves them.
            gone_for: the age of the lock of a queue under an id of ours that has no row any more.
            alone: whether to leave it to another worker that is at it just now.

        Returns:
            What was released.

        Raises:
            InvalidJobError: no such age.
        """
        released = verbs.release_foreign_locks(queues=queues, jobs=jobs, gone_for=gone_for, alone=alone)
        return await self._run(released)

    async def is_first_worker(self, worker: str) -> bool:
        """Whether a worker is the live one with the smallest id, which does what one of the fleet is to do."""
        return await self._run(verbs.is_first_worker(worker))

    async def tend_ends(self, keeps: Iterable[timedelta]) -> tuple[int, int]:
        """Have the partitions of ends made for today and tomorrow, and those dropped that are over; workers do it.

        Args:
            keeps: how long tasks keep their ends.

        Returns:
            How many partitions were made, and how many were dropped, with the rows that had none.

        Raises:
            InvalidJobError: no list of timedeltas over zero.
            psycopg.errors.LockNotAvailable: others are at the tables; nothing is lost by trying again later.
        """
        return await self._run(tend_ends(keeps))
