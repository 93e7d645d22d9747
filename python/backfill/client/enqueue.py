"""The verb `enqueue`, which adds one job on a connection of the client's or of the caller's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, Unpack, overload

from backfill.client.asking import carry_out
from backfill.client.carrier import AnyConnection
from backfill.client.connect import ClientLife
from backfill.client.execute import repeated, run, run_own
from backfill.client.gathering.rows import gathered, may_gather
from backfill.client.metering import metered
from backfill.client.naming import DIRECT, FOR_PRODUCERS, REMEMBERED, make_names
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
    with_flags,
)
from backfill.client.scheduling import Scheduling
from backfill.client.unique import add_reserving
from backfill.client.verbs.jobs import put_names
from backfill.client.ways import goes_by_functions, known_way
from backfill.errors import BackfillError, JobScheduleRefusedError
from backfill.jobs import EnqueueOutcome, EnqueueStatus, JobSpec, NewJob, job_of
from backfill.payloads import NOTHING
from backfill.records import Job
from backfill.storage.arrays import text_array
from backfill.storage.rows import decode_jobs
from backfill.storage.types import Lent
from backfill.tasks import PayloadOf, Task

P = TypeVar("P")
R = TypeVar("R")

_TRIES: Final = 5
Sender = Callable[[AnyConnection, str, str, Parameters], Awaitable[list[Job]]]


class EnqueueVerb(ClientLife):
    """The verb that adds one job."""

    @overload
    async def enqueue(
        self,
        job: NewJob[R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self,
        task: Task[None, R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
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
        connection: Lent | None = None,
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
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]: ...
    async def enqueue(
        self,
        job: NewJob[Any] | Task[Any, Any] | str,
        /,
        payload: Any = NOTHING,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]:
        """Add one job: `enqueue(task.job(payload))`, `enqueue(task, payload)` or `enqueue("name", payload)`.

        The call takes one round trip. When it returns, the job is committed and the workers have been told. With
        `connection=` the caller's transaction commits the job.

        Calls that are made while another one is on its way are written together, in one statement and one commit, and
        the workers are told once. Each call still gets its own outcome or its own error, and a call that is refused or
        cancelled changes nothing for the others. `BackfillClient(gather=False)` sends each call by itself.

        Args:
            job: a `NewJob`, a registered task, or a task's name (1 to 128 characters; no worker needs to know it yet).
                The defaults of a task (priority, queue, number of runs, delay) apply where the registered task or its
                `NewJob` is given; they do not apply where only its name is given.
            payload: what the handler gets. With a registered task, the payload arrives as it is given, or the call
                refuses it; if it is left out, it is the default of the handler's parameter, or None where the
                parameter's type allows None. With a task's name, the payload is written as JSON (plain values,
                dataclasses, msgspec Structs, pydantic models); None and no payload become `{}`.
            spec: a bundle of the keywords below. Each setting may be given only once: here, in the `NewJob` or as a
                keyword.
            connection: a connection of yours to write on, inside its transaction (or its autocommit). The client then
                neither uses nor opens a connection of its own, and raises the driver's errors unchanged.
            keywords: `run_at` (aware datetime) or `delay` (timedelta, by the database's clock): the job does not start
                before then; `priority` (-32,768 to 32,767, lower first, 0 if not given); `queue` (a `Queue`, parallel
                if not given); `max_attempts` (1 to 32,767, the number of runs in all); `retry` (RetryPolicy), `timeout`
                (timedelta, for one attempt) and `deadline` (aware datetime), which are stored in the job's flags;
                `flags` (names; workers can be told to skip jobs that have them); `limit_by` (a field of the payload,
                where only the name of a task with a limit by this field is given); `job_key` (1 to 512 characters) and
                `job_key_mode`; `unique_for` (timedelta, 1 millisecond to 3,650 days: no second job of the key is added
                for so long, even when this one has ended); `notify` (False: the workers are not told of the job, and
                find it when they next look, after at most their `poll_interval`).

        Returns:
            What was done, and the job's row as it was written. Check the outcome's `status` if the `job_key_mode` was
            unsafe_dedupe, or `unique_for` was given: the job may then not have been added; otherwise it always is.

        Raises:
            InvalidJobError: the input is bad; nothing was written. The error names the field, the value and the limit.
            JobScheduleRefusedError: an interceptor of `BeforeJobSchedule`, of one of the client's plugins, said Skip or
                Fail; nothing was written. What an interceptor raises comes out of this call too.
            TypeError: a setting was given twice, or a keyword is unknown.
            DatabaseConnectionError: there was no connection within half a minute; the job was not added. If a
                connection of the client turns out to be dead before the server has done anything, the call continues on
                another one.
            CommitUnknownError: the connection was lost while the server worked: the job may or may not have been added.
            ClientClosedError: the client was closed.
        """
        check_keywords("enqueue", keywords)
        notify = keywords.pop("notify", True)
        new = new_job(job, payload, spec, keywords)
        if self._scheduling is None:
            shape = shape_of(new.task, spec_of(new, spec, keywords), new.default_max_attempts, new.source)
            shape, encoded = shape.written(new.payload)
        else:
            shape, encoded = await self._asked(self._scheduling, new, spec, keywords)
        if self._tracer is None:
            return await self._write_one(shape, encoded, new.source, connection, notify=notify)
        with self._tracer.sending(shape.task) as span:
            shape = with_flags(shape, span.flags)
            outcome = await self._write_one(shape, encoded, new.source, connection, notify=notify)
            span.sent(1, job_id=outcome.id)
            return outcome

    async def _write_one(
        self,
        shape: JobShape,
        encoded: bytes,
        source: Task[Any, Any] | None,
        connection: Lent | None,
        *,
        notify: bool,
    ) -> EnqueueOutcome[Any]:
        """Write a job, by itself or together with those of other calls."""
        if connection is None:
            # While the client opens, its dsn's callable may make a call that must not wait for the one which opens it.
            senders = None if self._session is None else self._adding.senders()
            if senders is None or not may_gather(shape):
                return await self._enqueue_alone(shape, encoded, source, notify=notify)
            if senders.begin():
                try:
                    return await self._enqueue_alone(shape, encoded, source, notify=notify)
                finally:
                    senders.end()
            row = await senders.wait(shape, encoded, tell=notify)
            if row is None:
                return await self._enqueue_alone(shape, encoded, source, notify=notify)
            return _outcome(shape, row, source)
        async with self._connection(connection) as chosen:
            call = self._enqueue(chosen, _send, shape, encoded, source, tell=notify)
            outcome = await metered(call, shape)
            if not outcome.job.task_identifier and outcome.in_queue:
                await carry_out(chosen, self._schema, put_names(outcome.job))
            return outcome

    async def _enqueue_alone(
        self, shape: JobShape, payload: bytes, source: Task[Any, Any] | None, *, notify: bool
    ) -> EnqueueOutcome[Any]:
        """Add a job by itself, on a connection of the client's."""
        notices = self._adding.notices()
        tell = notify and (notices is None or notices.may_tell())
        call = self._retrying(lambda own: self._enqueue(own, _send_own, shape, payload, source, tell=tell))
        outcome = await metered(call, shape)
        if notices is not None and notify and not tell and outcome.is_enqueued:
            notices.add(1)
        job = outcome.job
        if not job.task_identifier and outcome.in_queue:
            # Asked apart: if the connection is lost meanwhile, nothing is written once more.
            await self._retrying(lambda own: carry_out(own, self._schema, put_names(job)), harmless=True)
        return outcome

    async def _asked(
        self, scheduling: Scheduling, new: NewJob[Any], spec: JobSpec | None, keywords: Mapping[str, Any]
    ) -> tuple[JobShape, bytes]:
        """Return a job's shape and its payload's JSON, as the interceptors of the client's plugins left them."""

        def settled(job: NewJob[Any]) -> tuple[JobSpec, JobShape]:
            whole = spec_of(job, spec, keywords)
            return whole, shape_of(job.task, whole, job.default_max_attempts, job.source)

        self._refuse_closed()
        answer = await scheduling.ask(new, settled)
        if isinstance(answer, JobScheduleRefusedError):
            raise answer
        return answer

    async def _enqueue(
        self,
        connection: AnyConnection,
        send: Sender,
        shape: JobShape,
        payload: bytes,
        source: Task[Any, Any] | None,
        *,
        tell: bool,
    ) -> EnqueueOutcome[Any]:
        by_functions = known_way(connection, self._schema)
        if by_functions is None:
            by_functions = await goes_by_functions(connection, self._schema)
        if shape.unique_for is not None:
            if send is _send_own:
                await self._make_names(connection, shape, by_functions=by_functions)
            done = await add_reserving(
                connection, self._schema, shape, payload, own=send is _send_own, tell=tell, by_functions=by_functions
            )
            return done.outcome(source)
        if not tell:
            return await self._add_quietly(connection, send, shape, payload, source, by_functions=by_functions)
        if shape.key is None and not by_functions:
            rows = await send(connection, self._schema, *insert_job(shape, payload))
            if rows:
                return EnqueueOutcome(EnqueueStatus.ADDED, rows[0].id, _named(rows[0], shape), source=source)
        if send is _send_own:
            await self._make_names(connection, shape, by_functions=by_functions)
        statement = "producer_add_job" if by_functions else "add_job"
        return await self._add(connection, send, statement, shape, payload, source)

    async def _make_names(self, connection: AnyConnection, shape: JobShape, *, by_functions: bool) -> None:
        """Make the names of a job before it is added.

        If the transaction that adds the job made them, it would block other callers that make the same names for as
        long as it waits for the job's key.
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
        connection: AnyConnection,
        send: Sender,
        statement: str,
        shape: JobShape,
        payload: bytes,
        source: Task[Any, Any] | None,
    ) -> EnqueueOutcome[Any]:
        """Add a job by a function of the schema.

        A producer's role adds every job in this way; other roles add a job so if it has a key, or if its task or queue
        is new.
        """
        parameters = add_job_parameters(shape, payload)
        for _ in range(_TRIES):
            rows = await send(connection, self._schema, statement, parameters)
            if not rows:  # another engine's function may lose a race for a key; it then returns no row
                continue
            return _outcome(shape, rows[0], source)
        raise BackfillError(
            f"task {shape.task!r}, job_key {shape.key!r}: add_job gave no row, {_TRIES} times; the key is being fought "
            "over"
        )

    async def _add_quietly(
        self,
        connection: AnyConnection,
        send: Sender,
        shape: JobShape,
        payload: bytes,
        source: Task[Any, Any] | None,
        *,
        by_functions: bool,
    ) -> EnqueueOutcome[Any]:
        """Add a job without notifying the workers."""
        statement = gathered([(shape, payload)], tell=False, by_functions=by_functions, patience=None)
        for _ in range(_TRIES):
            rows = await send(connection, self._schema, *statement)
            if rows:
                return _outcome(shape, rows[0], source)
            names = {shape.task}, set() if shape.queue is None else {shape.queue}
            await make_names(connection, self._schema, *names)
        raise BackfillError(f"task {shape.task!r}: it or its queue was made {_TRIES} times, and deleted as often")


async def _send(connection: AnyConnection, schema: str, name: str, parameters: Parameters) -> list[Job]:
    return decode_jobs(await run(connection, name, schema, parameters, binary=True))


async def _send_own(connection: AnyConnection, schema: str, name: str, parameters: Parameters) -> list[Job]:
    return decode_jobs(await repeated(lambda: run_own(connection, name, schema, parameters)))


def _outcome(shape: JobShape, row: Job, source: Task[Any, Any] | None) -> EnqueueOutcome[Any]:
    """Return what was done; the row of an older job, which may be of another task, has no names yet."""
    status = status_of(row, shape.mode)
    if status in (EnqueueStatus.ADDED, EnqueueStatus.REPLACED):
        _named(row, shape)
    return EnqueueOutcome(status, row.id, row, row.revision, source)


def _named(row: Job, shape: JobShape) -> Job:
    row.task_identifier, row.queue_name = shape.task, shape.queue
    return row


def new_job(
    job: NewJob[Any] | Task[Any, Any] | str,
    payload: Any,
    spec: JobSpec | None = None,
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> NewJob[Any]:
    """Make a `NewJob` from the first two arguments of a call.

    Args:
        job: the first argument.
        payload: the second one.
        spec: the call's spec; if it or `keywords` has a key, the task's function for the key is not called.
        keywords: the call's keywords.

    Raises:
        InvalidJobError: the first argument does not name a task, or the payload is not of the task's class.
        TypeError: a payload was given beside a `NewJob`, which has one.
    """
    if isinstance(job, NewJob):
        if payload is not NOTHING:
            raise TypeError("enqueue() got a payload beside a NewJob, which has one")
        return job
    if not isinstance(job, Task):
        return NewJob(job, payload)
    if job.key_of is not None and (keywords.get("job_key") is not None or getattr(spec, "job_key", None) is not None):
        payload = job.given(payload)
        return job_of(job, job.default_max_attempts, payload, None, job.defaults_for(payload, keyed=True))
    return job.job(payload)
