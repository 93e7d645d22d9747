"""Jobs that are in the queue already: read one, remove one, complete, fail, reschedule.

A role with a producer's grants has no right on the tables: it removes and reschedules jobs that wait, by functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from backfill.checks import KEY_LIMIT, SMALLINT, check_int, check_text
from backfill.client.connect import ClientLife
from backfill.client.execute import read_jobs, repeated, with_key_lock
from backfill.client.prepare import Parameters, due
from backfill.client.ways import goes_by_functions
from backfill.errors import InvalidJobError
from backfill.jobs import EnqueueOutcome
from backfill.records import Job
from backfill.retry import MAX_ATTEMPTS_LIMIT
from backfill.storage.arrays import number_array, text_array
from backfill.storage.connection import Connection

JobReference = int | Job | EnqueueOutcome[Any]
Asked = tuple[str, Parameters]
"""A statement by its name, and its parameters."""
REASON_LIMIT: Final = 100_000
_BIGINT: Final = range(-(2**63), 2**63)


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
            Its row as it is now, or None: it was completed or removed, or never was. A producer's role sees neither its payload
            (it reads None) nor its error.

        Raises:
            InvalidJobError: no id.
        """
        parameters = (str(reference_id("job", job)),)
        asked, for_producers = ("get_job", parameters), ("producer_see_job", parameters)
        if connection is None:
            jobs = await self._retrying(lambda own: self._read(own, asked, for_producers), harmless=True)
        else:
            async with self._connection(connection) as chosen:
                jobs = await self._read(chosen, asked, for_producers)
        return jobs[0] if jobs else None

    async def remove_job(
        self, job_key: str | None = None, *, id: JobReference | None = None, connection: Connection | None = None
    ) -> Job | None:
        """Remove a job: that of a key, or of an id.

        By its key, a job that a worker holds runs to its end; it loses its key, and is not tried again. By its id it is left
        alone. A producer's role removes jobs that wait, and no others, either way.

        Args:
            job_key: 1 to 512 characters.
            id: the job's id in its place; a `Job` or an `EnqueueOutcome` will do.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The job's row as it was last (`locked_by` says whether it is running still), or None: there was none.

        Raises:
            InvalidJobError: neither a key nor an id, or both.
        """
        if id is None:
            check_text("job_key", job_key, KEY_LIMIT)
            asked: Asked = "remove_job", (job_key,)
            for_producers: Asked = "producer_remove_job", (None, job_key)
        else:
            if job_key is not None:
                raise InvalidJobError("id", id, "give job_key or id, not both")
            number = reference_id("id", id)
            asked = "complete_jobs", (number_array([number]),)
            for_producers = "producer_remove_job", (str(number), None)
        jobs = await self._run(asked, connection, for_producers=for_producers)
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
        ids = _ids(jobs)
        return await self._change(ids, ("complete_jobs", (number_array(ids),)), connection)

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
        ids = _ids(jobs)
        if reason is not None:
            check_text("reason", reason, REASON_LIMIT)
        return await self._change(ids, ("permanently_fail_jobs", (number_array(ids), reason)), connection)

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
        when = due(run_at, delay)
        check_int("priority", priority, SMALLINT)
        check_int("attempts", attempts, range(MAX_ATTEMPTS_LIMIT + 1))
        check_int("max_attempts", max_attempts, range(1, MAX_ATTEMPTS_LIMIT + 1))
        ids, keys = _ids(jobs), list(_listed("job_keys", job_keys, "keys"))
        for index, key in enumerate(keys):
            check_text(f"job_keys[{index}]", key, KEY_LIMIT)
        parameters = (
            number_array(ids),
            *when,
            *(None if value is None else str(int(value)) for value in (priority, attempts, max_attempts)),
            text_array(keys),
        )
        for_producers = "producer_reschedule_jobs", parameters
        return await self._change(
            [*ids, *keys], ("reschedule_jobs", parameters), connection, for_producers=for_producers
        )

    async def _change(
        self,
        jobs: Sequence[int | str],
        asked: Asked,
        connection: Connection | None,
        *,
        for_producers: Asked | None = None,
    ) -> list[Job]:
        return await self._run(asked, connection, for_producers=for_producers, many=len(jobs) > 1) if jobs else []

    async def _run(
        self, asked: Asked, connection: Connection | None, *, for_producers: Asked | None = None, many: bool = False
    ) -> list[Job]:
        if connection is not None:
            async with self._connection(connection) as chosen:
                return await self._read(chosen, asked, for_producers)

        async def change(own: Connection) -> list[Job]:
            call = partial(self._read, own, asked, for_producers)
            return await (with_key_lock(own, self._schema, call) if many else repeated(call))

        return await self._retrying(change)

    async def _read(self, connection: Connection, asked: Asked, for_producers: Asked | None) -> list[Job]:
        """What a statement gives; where the role goes by functions, and there is one, what that one gives."""
        if for_producers is not None and await goes_by_functions(connection, self._schema):
            asked = for_producers
        return await read_jobs(connection, asked[0], self._schema, asked[1])


def _listed(field: str, given: object, what: str) -> Iterable[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidJobError(field, given, f"a list of {what}; for one job, a list of one: [{what.removesuffix('s')}]")
    return given


def _ids(jobs: object) -> list[int]:
    return [reference_id(f"jobs[{index}]", job) for index, job in enumerate(_listed("jobs", jobs, "ids"))]


def reference_id(field: str, job: object) -> int:
    """The id of a job that is meant by its id, its row or its outcome, or InvalidJobError."""
    value = job.id if isinstance(job, (Job, EnqueueOutcome)) else job
    if not isinstance(value, int) or isinstance(value, bool) or value not in _BIGINT:
        raise InvalidJobError(field, job, "a job's id: an integer from -2^63 to 2^63 - 1, a Job or an EnqueueOutcome")
    return value
