"""What the tests of an application need: `run_job` runs one task's handler as a worker would, without a database."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, TypeVar, overload

from backfill.client import BackfillClient
from backfill.errors import InvalidJobError
from backfill.flags import flags_of
from backfill.jobs import JobSpec
from backfill.payloads import NOTHING
from backfill.records import Job
from backfill.task import PayloadOf, Task
from backfill.worker.context import WorkerContext
from backfill.worker.execution.policy import limits_of

__all__ = ["run_job"]

P = TypeVar("P")
R = TypeVar("R")


@overload
async def run_job(
    task: Task[None, R],
    *,
    deps: Any = None,
    client: BackfillClient | None = None,
    job_id: int = 1,
    attempt: int = 1,
    spec: JobSpec | None = None,
) -> R: ...
@overload
async def run_job(
    task: Task[P, R],
    payload: PayloadOf[P],
    *,
    deps: Any = None,
    client: BackfillClient | None = None,
    job_id: int = 1,
    attempt: int = 1,
    spec: JobSpec | None = None,
) -> R: ...
async def run_job(
    task: Task[Any, R],
    payload: Any = NOTHING,
    *,
    deps: Any = None,
    client: BackfillClient | None = None,
    job_id: int = 1,
    attempt: int = 1,
    spec: JobSpec | None = None,
) -> R:
    """Run one job's handler as a worker would, and return its result. No database is needed.

    The payload is written as JSON and read again, as on its way through a queue. The handler's own exception is raised,
    and so are `Snooze` and `Discard`. The result of a task with `keep=` is written and read in the same way.

    Args:
        task: the task whose handler runs.
        payload: its payload. Left out, it is what a job without a payload gets.
        deps: what the context has as `deps`, in the place of what the registry's lifespan yields.
        client: what the context has as `client`. Left out, it is a client that is not connected.
        job_id: the job's id.
        attempt: which run of the job this is, from 1.
        spec: how the job would be enqueued. Its timeout goes before the task's, and its flags are `ctx.job.flags`.

    Raises:
        InvalidJobError: `attempt` is less than 1.
        InvalidPayloadError: the payload or the result would not arrive as it is.
        TimeoutError: the handler is async and ran longer than its timeout. A synchronous one is asked to stop, by
            `ctx.should_stop`, as a worker does.
    """
    if attempt < 1:
        raise InvalidJobError("attempt", attempt, "at least 1: the first run of a job is 1")
    text = task.encode(task.given(payload))
    value = task.resolve()(text) if task.shape.payload is not None else None
    stop = threading.Event()
    flags = () if spec is None else tuple(flags_of(spec))
    job = Job(id=job_id, task_identifier=task.identifier, payload_bytes=text, attempts=attempt, flags=flags)
    given = BackfillClient("postgresql:///") if client is None else client
    context = WorkerContext(job=job, worker_id="run_job", deps=deps, client=given, stop=stop)
    result = await _within(limits_of(job, task).seconds, task, value, context, stop)
    return result if task.keep is None else task.decode_result(task.encode_result(result))


async def _within(
    seconds: float | None, task: Task[Any, R], payload: Any, context: WorkerContext[Any], stop: threading.Event
) -> R:
    """The handler's result, if it does not run longer than so many seconds."""
    if task.shape.is_async:
        async with asyncio.timeout(seconds):
            return await task.invoke(payload, context)
    alarm = None if seconds is None else asyncio.get_running_loop().call_later(seconds, stop.set)
    try:
        return await task.invoke(payload, context)
    finally:
        if alarm is not None:
            alarm.cancel()
