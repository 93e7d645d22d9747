"""Cleanup: locks that nobody will ever open, jobs failed for good, serial queues and tasks that nothing uses.

Who holds a lock decides, not its age alone. Workers of ours have a row with a heartbeat: one that lives is spared, one
that died is recovered as its fellows would recover it. Workers of the Rust engine have one where its own table is. Of
others (Node) nothing can be known: theirs go by the age that is given.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from backfill.checks import check_age
from backfill.client.dead_letters.changes import DeadLetterVerbs
from backfill.client.held_queues import HeldQueueVerbs
from backfill.client.recovery import RecoveryVerbs
from backfill.client.verbs import cleanup as verbs
from backfill.client.verbs.cleanup import ReleasedLocks

__all__ = ["CleanupVerbs", "ReleasedLocks", "StartupCleanup"]

logger = logging.getLogger(__name__)

DEFAULT_STALE_QUEUE_LOCK_TIMEOUT: Final = timedelta(minutes=5)
"""From which age on an explicit call releases a serial queue's lock."""
DEFAULT_STALE_JOB_LOCK_TIMEOUT: Final = timedelta(minutes=30)
"""From which age on an explicit call releases a job's lock."""
DEFAULT_STALE_LOCK_CLEANUP_INTERVAL: Final = timedelta(seconds=60)
"""How often workers look for stale locks."""
ABANDONED_AFTER: Final = timedelta(hours=4)
"""The age at which the contract takes a lock for abandoned: what workers go by, for holders that nobody knows."""
_SHORT_QUEUE_TIMEOUT: Final = timedelta(minutes=1)
_SHORT_JOB_TIMEOUT: Final = timedelta(minutes=15)
_RISKY_JOB_TIMEOUT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class StartupCleanup:
    """What a cleanup did.

    Attributes:
        queue_locks: how many serial queues were unlocked.
        job_locks: how many jobs were unlocked.
        failed_jobs: how many jobs failed for good were moved to the dead letters.
    """

    queue_locks: int
    job_locks: int
    failed_jobs: int


class CleanupVerbs(DeadLetterVerbs, RecoveryVerbs, HeldQueueVerbs):
    """The verbs for what others have left behind."""

    async def release_stale_queue_locks(self, older_than: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT) -> int:
        """Unlock serial queues that have been locked for long by workers that do not live, and of which no job is locked.

        A queue whose job is locked still is unlocked with that job alone. Our workers that died are recovered, jobs and
        all.
        A queue that is held for the retry of a job (`held_queues`) stays held while that job needs it.

        Args:
            older_than: locks of this age, by the database's clock; zero to 36,525 days. Under a minute a warning is
                logged.

        Returns:
            How many queues were unlocked.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("older_than", older_than)
        warn_of_short(older_than, None)
        return (await self._run(verbs.release_stale(queues=older_than, jobs=None))).queue_locks

    async def release_stale_job_locks(self, older_than: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT) -> int:
        """Unlock jobs that have been locked for long by workers that do not live, and their queues with them.

        The attempt counts, so that a job whose last it was is failed for good. Our workers that died are recovered
        whole. Of Node's workers nobody knows whether they live: where they run too, give more than their longest job
        takes.

        Args:
            older_than: locks of this age, by the database's clock; zero to 36,525 days. Under 15 minutes a warning is
                logged, under 5 an error.

        Returns:
            How many jobs were unlocked.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("older_than", older_than)
        warn_of_short(None, older_than)
        return (await self._run(verbs.release_stale(queues=None, jobs=older_than))).job_locks

    async def cleanup_permanently_failed_jobs(self) -> int:
        """Take jobs that failed for good, and that nobody holds, out of the queue: each becomes a dead letter first.

        Returns:
            How many were moved; one that the database refuses stays, and the log names it.
        """
        return await self.process_failed_jobs()

    async def startup_cleanup(
        self,
        queue_timeout: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT,
        job_timeout: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT,
    ) -> StartupCleanup:
        """Release stale locks of jobs and queues, then move what failed for good to the dead letters.

        Args:
            queue_timeout: as for `release_stale_queue_locks`.
            job_timeout: as for `release_stale_job_locks`.

        Returns:
            What was done.

        Raises:
            InvalidJobError: no such age.
        """
        check_age("queue_timeout", queue_timeout)
        check_age("job_timeout", job_timeout)
        warn_of_short(queue_timeout, job_timeout)
        released = await self._run(verbs.release_stale(queues=queue_timeout, jobs=job_timeout))
        return StartupCleanup(released.queue_locks, released.job_locks, await self.cleanup_permanently_failed_jobs())

    async def collect_queues(self, limit: int | None = None) -> int:
        """Delete serial queues that no job uses and nobody has locked; one that is used again is made again.

        It goes in steps of at most 500, each a transaction of its own that waits for nobody; who adds a job to a queue
        just then waits for that step, and makes it again.

        Args:
            limit: how many to delete at most, from 1; all there are if not given.

        Returns:
            How many were deleted.

        Raises:
            CleanupRefusedError: `add_job` or `add_jobs` is another program's: a job that is added meanwhile could be
                left with a queue that is not there, and never run.
            InvalidJobError: no such limit.
        """
        return await self._run(verbs.collect_queues(self._schema, limit))

    async def collect_tasks(self) -> tuple[str, ...]:
        """Delete tasks that have no job and that no worker of ours names; one that is used again is made again.

        Only on demand: workers of other programs look up the ids of their tasks once, at their start. It reads all jobs
        twice; who adds a job to such a task meanwhile waits for it.

        Returns:
            Their names.

        Raises:
            CleanupRefusedError: a worker of another program may live (something is locked under its id, or it has
                beaten of late), or `add_job` or `add_jobs` is another program's.
        """
        return await self._run(verbs.collect_tasks(self._schema))


def warn_of_short(queue_timeout: timedelta | None, job_timeout: timedelta | None) -> None:
    """Warn of ages at which a worker may well live of which nothing can be known."""
    if queue_timeout is not None and queue_timeout < _SHORT_QUEUE_TIMEOUT:
        logger.warning(
            "queues are unlocked after %s: less than a minute is short, other programs may need them", queue_timeout
        )
    if job_timeout is not None and job_timeout < _SHORT_JOB_TIMEOUT:
        level = logging.ERROR if job_timeout < _RISKY_JOB_TIMEOUT else logging.WARNING
        logger.log(
            level,
            "jobs are unlocked after %s: what a Node worker runs for longer is run a second time beside it",
            job_timeout,
        )
