"""Jobs that are in the queue already: read one, remove one, complete, fail, reschedule.

A role with a producer's grants has no right on the tables: it removes and reschedules jobs that wait, by functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from backfill.client.asking import carry_out
from backfill.client.connect import ClientLife
from backfill.client.execute import repeated, with_key_lock
from backfill.client.verbs import jobs as verbs
from backfill.client.verbs.asked import Asked
from backfill.client.verbs.jobs import Change, JobReference
from backfill.records import Job
from backfill.storage.types import Connection

T = TypeVar("T")


class ManageVerbs(ClientLife):
    """The verbs for jobs that were added before.

    Completing, failing and rescheduling pass over a job that a worker holds (unless its lock is over 4 hours old) and
    ids that are not there; the rows that come back say which were changed.
    """

    async def get_job(self, job: JobReference, *, connection: Connection | None = None) -> Job | None:
        """Read one job.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a psycopg connection to read on; else one of the client's.

        Returns:
            Its row as it is now, or None: it was completed or removed, or never was. A producer's role sees neither its
            payload (it reads None) nor its error.

        Raises:
            InvalidJobError: no id.
        """
        verb = verbs.get_job(job)
        jobs = await self._ask(lambda: verbs.with_names(verb), connection, harmless=True)
        return jobs[0] if jobs else None

    async def remove_job(
        self, job_key: str | None = None, *, id: JobReference | None = None, connection: Connection | None = None
    ) -> Job | None:
        """Remove a job: that of a key, or of an id.

        By its key, a job that a worker holds runs to its end; it loses its key, and is not tried again. By its id it is
        left alone. A producer's role removes jobs that wait, and no others, either way.

        Args:
            job_key: 1 to 512 characters.
            id: the job's id in its place; a `Job` or an `EnqueueOutcome` will do.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The job's row as it was last (`locked_by` says whether it is running still), or None: there was none.

        Raises:
            InvalidJobError: neither a key nor an id, or both.
        """
        verb = verbs.remove_job(job_key, id)
        jobs = await self._ask(lambda: verbs.with_names(verb), connection)
        return jobs[0] if jobs else None

    async def complete_jobs(self, jobs: Iterable[JobReference], *, connection: Connection | None = None) -> list[Job]:
        """Delete jobs as done, without running them.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The rows that were deleted; jobs that a worker holds, and ids that are not there, are passed over.

        Raises:
            InvalidJobError: something that is no id, or no list of them.
        """
        return await self._change(verbs.complete_jobs(jobs), connection)

    async def fail_jobs(
        self, jobs: Iterable[JobReference], reason: str | None = None, *, connection: Connection | None = None
    ) -> list[Job]:
        """Give jobs up for good: they will not be tried again, and a worker moves them to the dead letters within a minute.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            reason: what `last_error` will say, 1 to 100,000 characters; else that they were marked by hand.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The rows that were changed; jobs that a worker holds, and ids that are not there, are passed over.

        Raises:
            InvalidJobError: something that is no id, no list of them, or no text.
        """
        return await self._change(verbs.fail_jobs(jobs, reason), connection)

    async def reschedule_jobs(
        self,
        jobs: Iterable[JobReference] = (),
        *,
        job_keys: Iterable[str] = (),
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        connection: Connection | None = None,
    ) -> list[Job]:
        """Change when and how jobs run; what is not given stays as it is.

        A producer's role changes jobs that wait; one that was given up it leaves alone, too.

        Args:
            jobs: their ids; `Job`s and `EnqueueOutcome`s will do.
            job_keys: of more jobs, by their keys.
            run_at: not before this time; aware.
            delay: not before this long from now, by the database's clock; instead of `run_at`.
            priority: -32,768 to 32,767, lower first.
            attempts: how many runs are counted as done, 0 to 32,767; 0 lets a job that was given up run again.
            max_attempts: all runs, 1 to 32,767.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The rows that were changed; jobs that a worker holds, and ids or keys that are not there, are passed over.

        Raises:
            InvalidJobError: something that is neither an id nor a key, or a value out of range; it is named.
        """
        change = verbs.reschedule_jobs(
            jobs, job_keys, run_at=run_at, delay=delay, priority=priority, attempts=attempts, max_attempts=max_attempts
        )
        return await self._change(change, connection)

    async def _change(self, change: Change, connection: Connection | None) -> list[Job]:
        return [] if change.verb is None else await self._ask(change.steps, connection, many=change.many)

    async def _ask(
        self,
        ask: Callable[[], Asked[T]],
        connection: Connection | None,
        *,
        harmless: bool = False,
        many: bool = False,
    ) -> T:
        """What a verb gives; on a connection of the client's it is asked again where nothing of it was done.

        Args:
            ask: gives the verb's steps, anew for each time.
            connection: the caller's, if there is one.
            harmless: whether it only reads, and may be repeated where nobody knows what was done.
            many: whether it may hold several jobs at once.
        """
        if connection is not None:
            return await self._run(ask(), connection)

        async def answer(own: Connection) -> T:
            async def call() -> T:
                return await carry_out(own, self._schema, ask())

            if harmless:
                return await call()
            return await (with_key_lock(own, self._schema, call) if many else repeated(call))

        return await self._retrying(answer, harmless=harmless)
