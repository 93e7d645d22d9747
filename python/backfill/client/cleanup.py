"""Cleanup of locks that nobody will release, jobs that failed for good, and unused serial queues and tasks.

Whether a lock is released depends on its holder, not on its age alone. Our workers have a row with a heartbeat: the
locks of a live worker are left alone, and a dead worker is recovered in the way in which other workers would recover
it. Workers of the Rust engine have such a row if the Rust engine's own table exists. Nothing is known about the workers
of other engines (Node), so their locks are released by the given age.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from backfill.checks import check_age
from backfill.client.dead_letters.changes import DeadLetterVerbs
from backfill.client.execute import repeated
from backfill.client.held_queues import HeldQueueVerbs
from backfill.client.metering import count_released, counting_failures
from backfill.client.recovery import RecoveryVerbs
from backfill.client.verbs import cleanup as verbs
from backfill.client.verbs import unlocking
from backfill.client.verbs.cleanup import ReleasedLocks

__all__ = ["CleanupVerbs", "ReleasedLocks", "StartupCleanup"]

logger = logging.getLogger(__name__)

DEFAULT_STALE_QUEUE_LOCK_TIMEOUT: Final = timedelta(minutes=5)
"""The age from which an explicit call releases a serial queue's lock."""
DEFAULT_STALE_JOB_LOCK_TIMEOUT: Final = timedelta(minutes=30)
"""The age from which an explicit call releases a job's lock."""
DEFAULT_STALE_LOCK_CLEANUP_INTERVAL: Final = timedelta(seconds=60)
"""How often workers look for stale locks."""
ABANDONED_AFTER: Final = timedelta(hours=4)
"""The age at which the contract regards a lock as abandoned; workers apply it to locks of unknown holders."""
_SHORT_QUEUE_TIMEOUT: Final = timedelta(minutes=1)
_SHORT_JOB_TIMEOUT: Final = timedelta(minutes=15)
_RISKY_JOB_TIMEOUT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class StartupCleanup:
    """What a cleanup did.

    Attributes:
        queue_locks: how many serial queues were unlocked.
        job_locks: how many jobs were unlocked.
        failed_jobs: how many jobs that failed for good were moved to the dead letters.
    """

    queue_locks: int
    job_locks: int
    failed_jobs: int


class CleanupVerbs(DeadLetterVerbs, RecoveryVerbs, HeldQueueVerbs):
    """The verbs that clean up what others have left behind."""

    async def release_stale_queue_locks(self, older_than: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT) -> int:
        """Unlock serial queues that workers locked long ago and no longer use, and that have no locked job.

        Workers that are known to be alive keep their queues. A queue whose job is still locked is unlocked only
        together with that job. Our workers that died are recovered completely, including their jobs. A queue that is
        held for the retry of a job (`held_queues`) stays held while that job needs it.

        Args:
            older_than: the age, by the database's clock, from which locks are released; zero to 36,525 days. An age
                under a minute logs a warning.

        Returns:
            How many queues were unlocked.

        Raises:
            InvalidJobError: an age is out of range.
        """
        check_age("older_than", older_than)
        warn_of_short(older_than, None)
        return (await self._release_stale(older_than, None, "queue_locks")).queue_locks

    async def release_stale_job_locks(self, older_than: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT) -> int:
        """Unlock jobs that workers locked long ago and no longer run, and the queues of these jobs.

        The interrupted attempt counts, so a job in its last attempt fails for good. Workers that are known to be alive
        keep their jobs, and our workers that died are recovered completely. It cannot be known whether a Node worker is
        alive: if Node workers run too, give an age that is longer than their longest job takes.

        Args:
            older_than: the age, by the database's clock, from which locks are released; zero to 36,525 days. An age
                under 15 minutes logs a warning, and one under 5 minutes logs an error.

        Returns:
            How many jobs were unlocked.

        Raises:
            InvalidJobError: an age is out of range.
        """
        check_age("older_than", older_than)
        warn_of_short(None, older_than)
        return (await self._release_stale(None, older_than, "job_locks")).job_locks

    async def force_unlock_workers(self, worker_ids: Iterable[str], *, force: bool = False) -> ReleasedLocks:
        """Unlock every job and serial queue that certain workers hold, as the contract's function of this name does.

        It is for workers that will never come back and whose death nobody notices, such as Node workers whose machine
        is gone. Workers of ours and of the Rust engine need it hardly ever: others recover what dead ones held. Their
        jobs go on from here as they are: the interrupted attempt counts, a job without attempts left becomes a dead
        letter at the next sweep, and a queue that was kept for the retry of one of these jobs is free for others.

        Whether a Node worker is alive is not known. If it is, its jobs are started a second time while it still runs
        them, and the jobs of its serial queues run beside each other.

        Args:
            worker_ids: the ids of the workers, as `locked_by` of jobs and queues has them; ids that hold nothing do no
                harm.
            force: whether to take the jobs of workers too that are alive by their heartbeat. Each of these jobs can
                then run twice at once.

        Returns:
            How many jobs and queues these workers held.

        Raises:
            CleanupRefusedError: some of the workers are alive, and `force` is not set; the error names them, and
                nothing was unlocked.
            InvalidJobError: `worker_ids` is no list of ids of workers.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's or an operator's grants.

        Example:
            >>> await client.force_unlock_workers(["worker-1f2e3d4c5b6a7988"])
            ReleasedLocks(queue_locks=2, job_locks=7)
        """
        ids = unlocking.checked_ids(worker_ids)

        async def call() -> ReleasedLocks:
            return await self._run(unlocking.force_unlock_workers(ids, force=force))

        return await repeated(call)

    async def cleanup_permanently_failed_jobs(self) -> int:
        """Move jobs that failed for good, and that nobody holds, from the queue to the dead letters.

        Returns:
            How many jobs were moved. A job that the database refuses to move stays in the queue, and the log names it.
        """
        return await self.process_failed_jobs()

    async def startup_cleanup(
        self,
        queue_timeout: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT,
        job_timeout: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT,
    ) -> StartupCleanup:
        """Release stale locks of jobs and queues, then move jobs that failed for good to the dead letters.

        Args:
            queue_timeout: as for `release_stale_queue_locks`.
            job_timeout: as for `release_stale_job_locks`.

        Returns:
            What was done.

        Raises:
            InvalidJobError: an age is out of range.
        """
        check_age("queue_timeout", queue_timeout)
        check_age("job_timeout", job_timeout)
        warn_of_short(queue_timeout, job_timeout)
        released = await self._release_stale(queue_timeout, job_timeout, "queue_locks", "job_locks")
        return StartupCleanup(released.queue_locks, released.job_locks, await self.cleanup_permanently_failed_jobs())

    async def _release_stale(self, queues: timedelta | None, jobs: timedelta | None, *operations: str) -> ReleasedLocks:
        """Release stale locks, and count what was released, and failures, for the metrics."""
        with counting_failures(*operations):
            return count_released(await self._run(verbs.release_stale(queues=queues, jobs=jobs)))

    async def collect_queues(self, limit: int | None = None) -> int:
        """Delete serial queues that no job uses and nobody has locked; a queue that is used again is made again.

        Queues are deleted in steps of at most 500. Each step is a transaction of its own and waits for nobody. A caller
        that adds a job to one of these queues at that moment waits for the step to end, and then makes the queue again.

        Args:
            limit: the largest number of queues to delete, from 1; all unused ones if not given.

        Returns:
            How many queues were deleted.

        Raises:
            CleanupRefusedError: the function `add_job` or `add_jobs` belongs to another program: a job that it adds
                meanwhile could be left with a queue that does not exist, and would then never run.
            InvalidJobError: the limit is out of range.
        """
        return await self._run(verbs.collect_queues(self._schema, limit))

    async def collect_tasks(self) -> tuple[str, ...]:
        """Delete tasks that have no job and that none of our workers names; a task that is used again is made again.

        No worker does this by itself, because workers of other programs look up the ids of their tasks only once, at
        their start. The call reads all jobs twice. A caller that adds a job to such a task meanwhile waits until the
        call has ended.

        Returns:
            The names of the deleted tasks.

        Raises:
            CleanupRefusedError: a worker of another program may be alive (something is locked under its id, or its last
                heartbeat is recent), or the function `add_job` or `add_jobs` belongs to another program.
        """
        return await self._run(verbs.collect_tasks(self._schema))


def warn_of_short(queue_timeout: timedelta | None, job_timeout: timedelta | None) -> None:
    """Log a warning for ages so short that a worker about which nothing is known may still be alive."""
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
