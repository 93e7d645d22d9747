"""Verbs for jobs that are in the queue already: read one, remove one, complete, fail and reschedule them.

Written by tools/sync_verbs.py from `client/manage.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from backfill.client.verbs.jobs import JobReference
from backfill.records import Job
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class ManageVerbs(Verbs):
    """The verbs for jobs that are in the queue already.

    The verbs that complete, fail and reschedule jobs skip a job that a worker holds (unless its lock is over 4 hours
    old) and ids that do not exist; the rows that they return show which jobs were changed.
    """

    def get_job(self, job: JobReference, *, connection: Lent | None = None) -> Job | None:
        """Read one job.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The job's row as it is now, or None if the job was completed or removed, or never existed. A producer's role
            sees neither the job's payload (it is None) nor its error.

        Raises:
            InvalidJobError: `job` is not an id.
        """
        answer: Job | None = self._run(self._verbs.get_job(job, connection=connection))
        return answer

    def remove_job(
        self, job_key: str | None = None, *, id: JobReference | None = None, connection: Lent | None = None
    ) -> Job | None:
        """Remove the job that has a key, or an id.

        If a worker holds the job, the two ways differ: removed by its key, the job runs to its end, loses its key and
        is not tried again; by its id, it is left unchanged. A producer's role can remove only jobs that wait, both by
        key and by id.

        A key that `unique_for` reserved is free afterwards. By its key it is freed even if the job has ended already.

        Args:
            job_key: 1 to 512 characters.
            id: the job's id, instead of a key; a `Job` or an `EnqueueOutcome` will do.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The last state of the job's row (`locked_by` shows whether the job is still running), or None if there was
            no such job.

        Raises:
            InvalidJobError: neither a key nor an id was given, or both were.
        """
        answer: Job | None = self._run(self._verbs.remove_job(job_key, id=id, connection=connection))
        return answer

    def complete_jobs(self, jobs: Iterable[JobReference], *, connection: Lent | None = None) -> list[Job]:
        """Delete jobs as done, without running them.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The rows that were deleted; jobs that a worker holds, and ids that do not exist, are skipped.

        Raises:
            InvalidJobError: something given is not an id, or the ids are not a list.
        """
        answer: list[Job] = self._run(self._verbs.complete_jobs(jobs, connection=connection))
        return answer

    def fail_jobs(
        self, jobs: Iterable[JobReference], reason: str | None = None, *, connection: Lent | None = None
    ) -> list[Job]:
        """Fail jobs for good: they are not tried again, and a worker moves them to the dead letters within a minute.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            reason: the text for the jobs' `last_error`, 1 to 100,000 characters; if not given, it says that they were
                marked by hand.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The rows that were changed; jobs that a worker holds, and ids that do not exist, are skipped.

        Raises:
            InvalidJobError: something given is not an id, the ids are not a list, or the reason is not a text.
        """
        answer: list[Job] = self._run(self._verbs.fail_jobs(jobs, reason, connection=connection))
        return answer

    def reschedule_jobs(
        self,
        jobs: Iterable[JobReference] = (),
        *,
        job_keys: Iterable[str] = (),
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        connection: Lent | None = None,
    ) -> list[Job]:
        """Change when and how jobs run; what is not given stays as it is.

        A producer's role changes only jobs that wait; it skips jobs that have failed for good as well.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            job_keys: the keys of more jobs.
            run_at: the earliest time at which the jobs run; aware.
            delay: the same as a span from now, by the database's clock; instead of `run_at`.
            priority: -32,768 to 32,767, lower first.
            attempts: how many runs are counted as done, 0 to 32,767; 0 lets a job that has failed for good run again.
            max_attempts: the number of runs in all, 1 to 32,767.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The rows that were changed; jobs that a worker holds, and ids or keys that do not exist, are skipped.

        Raises:
            InvalidJobError: something given is neither an id nor a key, or a value is out of range; the error names it.
        """
        answer: list[Job] = self._run(
            self._verbs.reschedule_jobs(
                jobs,
                job_keys=job_keys,
                run_at=run_at,
                delay=delay,
                priority=priority,
                attempts=attempts,
                max_attempts=max_attempts,
                connection=connection,
            )
        )
        return answer
