"""Verbs that requeue, delete and add dead letters, and that move jobs there which others have failed for good.

Written by tools/sync_verbs.py from `client/dead_letters/changes.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from backfill.client.verbs.requeue import KEEP
from backfill.dead_letters import DlqFilter, DlqJob
from backfill.records import Job
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class DeadLetterVerbs(Verbs):
    """The verbs that change dead letters: jobs that will not be tried again."""

    def requeue_dlq_job(
        self,
        id: int,
        *,
        notes: str | None = None,
        payload: Any = KEEP,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        connection: Lent | None = None,
    ) -> Job:
        """Add an entry's job again, with all its attempts, and update the entry in the same transaction.

        The entry stays until the new job, or a later job with its key, has completed; if the job fails for good again,
        it returns to the same entry. A waiting job with the same key is replaced, as `enqueue` does. If a job that was
        requeued from the entry earlier is still running, or still exists and has no key or a list as its payload, no
        job is added and that job is returned unchanged. A deadline that the job had is dropped.

        Args:
            id: the entry's id.
            notes: a text that is added to the entry's notes, 1 to 10,000 characters.
            payload: another payload; the entry's own payload if not given.
            priority: -32,768 to 32,767; the entry's own priority if not given.
            run_at: the earliest time at which the job runs; aware. If neither `run_at` nor `delay` is given, it is now.
            delay: the same as a span from now, by the database's clock; instead of `run_at`.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The job as it was added.

        Raises:
            DlqJobNotFoundError: there is no such entry.
            InvalidJobError: a value is out of range.
            InvalidPayloadError: the payload cannot be written as JSON.
            psycopg.errors.SerializationFailure: only with `connection=`: the entry was renewed, deleted or requeued
                meanwhile, and the caller must repeat the transaction.
        """
        answer: Job = self._run(
            self._verbs.requeue_dlq_job(
                id, notes=notes, payload=payload, priority=priority, run_at=run_at, delay=delay, connection=connection
            )
        )
        return answer

    def requeue_dlq_jobs(
        self,
        jobs: Iterable[int] | DlqFilter,
        *,
        notes: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> dict[int, int]:
        """Add the jobs of many entries again, as `requeue_dlq_job` does, 500 in each transaction.

        If the database refuses an entry, its transaction is undone, and the entries in it are then requeued one by one.
        An entry is skipped if a job that was requeued from it earlier is still running, or if that job still waits and
        has no key or a list as its payload.

        Args:
            jobs: the entries' ids, or a filter; ids that do not exist are skipped.
            notes: a text that is added to each entry's notes.
            priority: the priority of all jobs; each entry's own if not given.
            run_at: the earliest time at which the jobs run; aware.
            delay: the same as a span from now; instead of `run_at`.

        Returns:
            The ids of the added jobs, by the ids of their entries.

        Raises:
            InvalidJobError: a value is out of range.
            DlqRequeueError: some entries were refused and all others were requeued; the error names both.
        """
        answer: dict[int, int] = self._run(
            self._verbs.requeue_dlq_jobs(jobs, notes=notes, priority=priority, run_at=run_at, delay=delay)
        )
        return answer

    def delete_dlq_job(self, id: int, *, connection: Lent | None = None) -> bool:
        """Delete an entry.

        Args:
            id: the entry's id.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            Whether there was such an entry.

        Raises:
            InvalidJobError: `id` is not an id.
        """
        answer: bool = self._run(self._verbs.delete_dlq_job(id, connection=connection))
        return answer

    def delete_dlq_jobs(self, jobs: Iterable[int] | DlqFilter) -> int:
        """Delete many entries, by their ids or a filter, 500 in each transaction, and return how many there were."""
        answer: int = self._run(self._verbs.delete_dlq_jobs(jobs))
        return answer

    def delete_dlq_by_job_key(self, job_key: str, *, connection: Lent | None = None) -> int:
        """Delete the entry that has a job key.

        Args:
            job_key: 1 to 512 characters.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            How many entries there were: 1 or 0.

        Raises:
            InvalidJobError: `job_key` is not a key.
        """
        answer: int = self._run(self._verbs.delete_dlq_by_job_key(job_key, connection=connection))
        return answer

    def purge_dlq(self, older_than: timedelta) -> int:
        """Delete entries whose last failure is older than this, by this machine's clock; return how many there were."""
        answer: int = self._run(self._verbs.purge_dlq(older_than))
        return answer

    def add_to_dlq(
        self, job: Job, reason: str, *, last_error: str | None = None, connection: Lent | None = None
    ) -> DlqJob:
        """Add a job to the dead letters by hand; the job's row in the queue stays there.

        Args:
            job: the job as it was read. If there is an entry with its key, that entry is renewed.
            reason: why the job is a dead letter, 1 to 100,000 characters.
            last_error: the text of an error; the job's own if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The entry.

        Raises:
            InvalidJobError: `job` is not a `Job`, or a text is too short or too long.
        """
        answer: DlqJob = self._run(self._verbs.add_to_dlq(job, reason, last_error=last_error, connection=connection))
        return answer

    def process_failed_jobs(self) -> int:
        """Move all jobs that other programs have failed for good, and that nobody holds, to the dead letters.

        Jobs that our own workers fail for good are there already. Workers do this at their start and once a minute.

        Returns:
            How many jobs were moved.
        """
        answer: int = self._run(self._verbs.process_failed_jobs())
        return answer
