"""Adding one job: the verb `enqueue`, on a connection of the client's or of the caller's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, Unpack, overload

from backfill.client.asking import carry_out
from backfill.client.connect import ClientLife
from backfill.client.execute import repeated, run, run_own
from backfill.client.naming import DIRECT, FOR_PRODUCERS, REMEMBERED
from backfill.client.prepare import (
    JobKeywords,
    JobShape,
    Parameters,
    add_job_parameters,
    check_keywords,
    insert_job,
    shape_of,
    spec_of,
    status_of,
)
from backfill.client.verbs.jobs import put_names
from backfill.client.ways import goes_by_functions, known_way
from backfill.errors import BackfillError
from backfill.jobs import EnqueueOutcome, EnqueueStatus, JobSpec, NewJob
from backfill.payloads import NOTHING
from backfill.records import Job
from backfill.storage.arrays import text_array
from backfill.storage.rows import decode_jobs
from backfill.storage.types import Connection
from backfill.tasks import PayloadOf, Task

P = TypeVar("P")
R = TypeVar("R")

_TRIES: Final = 5
Sender = Callable[[Connection, str, str, Parameters], Awaitable[list[Job]]]


class EnqueueVerb(ClientLife):
    """The verb that adds one job."""

    @overload
    async def enqueue(
        self,
        job: NewJob[R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self,
        task: Task[None, R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self,
        task: Task[P, R],
        /,
        payload: PayloadOf[P],
        *,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self,
        task: str,
        /,
        payload: object = NOTHING,
        *,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]: ...
    async def enqueue(
        self,
        job: NewJob[Any] | Task[Any, Any] | str,
        /,
        payload: Any = NOTHING,
        *,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]:
        """Add one job: `enqueue(task.job(payload))`, `enqueue(task, payload)` or `enqueue("name", payload)`.

        One round trip. Once it returns, the job is committed and workers were told; with `connection=` it is the
        caller's transaction that commits it.

        Args:
            job: a `NewJob`, a registered task, or a task's name (1 to 128 characters; no worker needs to know it yet).
                What the task says of its jobs (priority, queue, number of runs, delay) holds where it is given, and not
                by its name.
            payload: what the handler gets. With a registered task it arrives as it is given, or is refused here; left
                out, it is the default of the handler's parameter, else None where its type has None. By name it is
                written as JSON (plain values, dataclasses, msgspec Structs, pydantic models); None and nothing become
                `{}`.
            spec: a bundle of the keywords below; each thing may be said once, here, in the NewJob or as a keyword.
            connection: a psycopg connection to write on, inside its transaction (or its autocommit). The client's own
                connections are not used, nor opened, and the driver's errors come as they are.
            keywords: `run_at` (aware datetime) or `delay` (timedelta, by the database's clock): not before then;
                `priority` (-32,768 to 32,767, lower first, 0 if not said); `queue` (a `Queue`, parallel if not said);
                `max_attempts` (1 to 32,767, all runs); `retry` (RetryPolicy), `timeout` (timedelta, of an attempt) and
                `deadline` (aware datetime), which travel in the job's flags; `flags` (names that workers can be told to
                leave alone); `job_key` (1 to 512 characters) and `job_key_mode`.

        Returns:
            What was done, and the job's row as it was written. Look at its `status` where a mode of unsafe_dedupe was
            given: only then can the job not be enqueued.

        Raises:
            InvalidJobError: bad input, refused before anything is written; field, value and limit are named.
            TypeError: one thing was said twice, or a keyword is unknown.
            DatabaseConnectionError: no connection within half a minute, and the job was not added. Where one of the
                client's connections turns out to be dead before the server had done anything, the call goes on with
                another.
            CommitUnknownError: the connection was lost while the server worked: the job may or may not have been added.
            ClientClosedError: the client was closed.
        """
        check_keywords("enqueue", keywords)
        new = new_job(job, payload)
        shape = shape_of(new.task, spec_of(new, spec, keywords), new.default_max_attempts, new.source)
        encoded = shape.payload(new.payload)
        if connection is None:
            return await self._retrying(lambda own: self._enqueue(own, _send_own, shape, encoded, new.source))
        async with self._connection(connection) as chosen:
            return await self._enqueue(chosen, _send, shape, encoded, new.source)

    async def _enqueue(
        self, connection: Connection, send: Sender, shape: JobShape, payload: bytes, source: Task[Any, Any] | None
    ) -> EnqueueOutcome[Any]:
        by_functions = known_way(connection, self._schema)
        if by_functions is None:
            by_functions = await goes_by_functions(connection, self._schema)
        if shape.key is None and not by_functions:
            rows = await send(connection, self._schema, *insert_job(shape, payload))
            if rows:
                return EnqueueOutcome(EnqueueStatus.ADDED, rows[0].id, _named(rows[0], shape), source=source)
        if send is _send_own:
            await self._make_names(connection, shape, by_functions=by_functions)
        statement = "producer_add_job" if by_functions else "add_job"
        return await self._add(connection, send, statement, shape, payload, source)

    async def _make_names(self, connection: Connection, shape: JobShape, *, by_functions: bool) -> None:
        """Make the names of a job before it is added.

        Waiting for its key, it would hold up who makes the same names.
        """
        makers = FOR_PRODUCERS if by_functions else DIRECT
        for (_, statement), name, known in zip(makers, (shape.task, shape.queue), self._known, strict=True):
            if name is not None and name not in known:
                await run_own(connection, statement, self._schema, (text_array([name]),))
                if len(known) >= REMEMBERED:
                    known.clear()
                known.add(name)

    async def _add(
        self,
        connection: Connection,
        send: Sender,
        statement: str,
        shape: JobShape,
        payload: bytes,
        source: Task[Any, Any] | None,
    ) -> EnqueueOutcome[Any]:
        """Add a job by a function of the schema.

        That is any job of a producer, and else one that has a key or whose task or queue is new.
        """
        parameters = add_job_parameters(shape, payload)
        for _ in range(_TRIES):
            rows = await send(connection, self._schema, statement, parameters)
            if not rows:  # another engine's function may lose a race for a key, and say so by giving nothing
                continue
            row, status = rows[0], status_of(rows[0], shape.mode)
            if status in (EnqueueStatus.ADDED, EnqueueStatus.REPLACED):
                _named(row, shape)
            elif not row.task_identifier:  # the row is an older job's, perhaps of another task
                await carry_out(connection, self._schema, put_names(row))
            return EnqueueOutcome(status, row.id, row, row.revision, source)
        raise BackfillError(
            f"task {shape.task!r}, job_key {shape.key!r}: add_job gave no row, {_TRIES} times; the key is being fought over"
        )


async def _send(connection: Connection, schema: str, name: str, parameters: Parameters) -> list[Job]:
    return decode_jobs(await run(connection, name, schema, parameters, binary=True))


async def _send_own(connection: Connection, schema: str, name: str, parameters: Parameters) -> list[Job]:
    return decode_jobs(await repeated(lambda: run_own(connection, name, schema, parameters)))


def _named(row: Job, shape: JobShape) -> Job:
    row.task_identifier, row.queue_name = shape.task, shape.queue
    return row


def new_job(job: NewJob[Any] | Task[Any, Any] | str, payload: Any) -> NewJob[Any]:
    """What a call's first two arguments ask for.

    Raises:
        InvalidJobError: the first is nothing that names a task, or the payload is not of the task's class.
        TypeError: a NewJob and another payload.
    """
    if isinstance(job, NewJob):
        if payload is not NOTHING:
            raise TypeError("enqueue() got a payload beside a NewJob, which has one")
        return job
    return job.job(payload) if isinstance(job, Task) else NewJob(job, payload)
