"""Cleanup of locks that nobody will release, jobs that failed for good, and unused serial queues and tasks.

Written by tools/sync_verbs.py from `client/cleanup.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from backfill.client.cleanup import DEFAULT_STALE_JOB_LOCK_TIMEOUT, DEFAULT_STALE_QUEUE_LOCK_TIMEOUT, StartupCleanup
from backfill.client.verbs.cleanup import ReleasedLocks
from backfill.sync.base import Verbs


class CleanupVerbs(Verbs):
    """The verbs that clean up what others have left behind."""

    def release_stale_queue_locks(self, older_than: timedelta = DEFAULT_STALE_QUEUE_LOCK_TIMEOUT) -> int:
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
        answer: int = self._run(self._verbs.release_stale_queue_locks(older_than))
        return answer

    def release_stale_job_locks(self, older_than: timedelta = DEFAULT_STALE_JOB_LOCK_TIMEOUT) -> int:
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
        answer: int = self._run(self._verbs.release_stale_job_locks(older_than))
        return answer

    def force_unlock_workers(self, worker_ids: Iterable[str], *, force: bool = False) -> ReleasedLocks:
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
            >>> client.force_unlock_workers(["worker-1f2e3d4c5b6a7988"])
            ReleasedLocks(queue_locks=2, job_locks=7)
        """
        answer: ReleasedLocks = self._run(self._verbs.force_unlock_workers(worker_ids, force=force))
        return answer

    def cleanup_permanently_failed_jobs(self) -> int:
        """Move jobs that failed for good, and that nobody holds, from the queue to the dead letters.

        Returns:
            How many jobs were moved. A job that the database refuses to move stays in the queue, and the log names it.
        """
        answer: int = self._run(self._verbs.cleanup_permanently_failed_jobs())
        return answer

    def startup_cleanup(
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
        answer: StartupCleanup = self._run(self._verbs.startup_cleanup(queue_timeout, job_timeout))
        return answer

    def collect_queues(self, limit: int | None = None) -> int:
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
        answer: int = self._run(self._verbs.collect_queues(limit))
        return answer

    def collect_tasks(self) -> tuple[str, ...]:
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
        answer: tuple[str, ...] = self._run(self._verbs.collect_tasks())
        return answer
