"""The verb `enqueue`, which adds one job on a connection of the client's or of the caller's.

Written by tools/sync_verbs.py from `client/enqueue.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from typing import Any, TypeVar, Unpack, overload

from backfill.client.prepare import JobKeywords
from backfill.jobs import EnqueueOutcome, JobSpec, NewJob
from backfill.payloads import NOTHING
from backfill.storage.types import Lent
from backfill.sync.base import Verbs
from backfill.tasks import PayloadOf, Task

P = TypeVar("P")
R = TypeVar("R")


class EnqueueVerb(Verbs):
    """The verb that adds one job."""

    @overload
    def enqueue(
        self,
        job: NewJob[R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    def enqueue(
        self,
        task: Task[None, R],
        /,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    def enqueue(
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
    def enqueue(
        self,
        task: str,
        /,
        payload: object = NOTHING,
        *,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]: ...
    def enqueue(
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

        Each call has a connection and a transaction of its own; for many jobs at once there is `enqueue_bulk`.

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
        answer: EnqueueOutcome[Any] = self._run(
            self._verbs.enqueue(job, payload, spec=spec, connection=connection, **keywords)
        )
        return answer
