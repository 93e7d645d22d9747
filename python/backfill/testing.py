"""What the tests of an application need: `run_job` runs one task's handler as a worker would, without a database.

`SaidProgress` takes what the handler says of its progress meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from backfill.batches import left_of
from backfill.checks import check_time
from backfill.client import BackfillClient
from backfill.client.blocks import Blocks
from backfill.client.borrowed import borrowed
from backfill.client.carrier import at_once
from backfill.client.prepare import shape_of, with_defaults
from backfill.errors import BatchFailed, ConfigurationError, InvalidJobError, TransactionUseError
from backfill.jobs import UNSAID, JobSpec
from backfill.payloads import NOTHING, decode_plain
from backfill.payloads.scheduled import Run, with_run
from backfill.progress import Step, checked_step, encode_checkpoint
from backfill.records import Job
from backfill.storage.rows import micros
from backfill.task import PayloadOf, Task
from backfill.tasks import TaskRegistry
from backfill.worker.context import WorkerContext
from backfill.worker.execution.policy import limits_of
from backfill.worker.execution.session_transactions import begun, refuse_unfit
from backfill.worker.execution.thread_transactions import CompletingInThread, ThreadTransaction, connected, on_loop
from backfill.worker.execution.transactions import CompletingTransaction, HandlerTransaction, as_handlers_have_it
from backfill.wrapped import wrapped

if TYPE_CHECKING:
    from psycopg import IsolationLevel

    from backfill.worker.execution.transaction_blocks import TransactionBlocks

__all__ = ["SaidProgress", "run_job"]

P = TypeVar("P")
R = TypeVar("R")


class SaidProgress:
    """What a handler has said of its progress in `run_job`, checked as in a worker.

        said = SaidProgress(checkpoint={"row": 500})
        await run_job(copy_rows, {}, progress=said)
        assert said.checkpoints[-1] == {"row": 1000}

    Args:
        checkpoint: what the handler finds in `ctx.checkpointed` at first, as if an earlier attempt had left it.

    Attributes:
        steps: the calls of `ctx.set_progress`, each with `done`, `total` and `note`.
        checkpoints: the values of the calls of `ctx.checkpoint`, as the next attempt would read them.
    """

    def __init__(self, *, checkpoint: Any = None) -> None:
        self.steps: list[Step] = []
        self.checkpoints: list[Any] = []
        self._first = decode_plain(encode_checkpoint(checkpoint))

    def progress(self, _running: Any, done: float, total: float | None = None, note: str | None = None) -> None:
        """Note a call of `ctx.set_progress`."""
        self.steps.append(checked_step(done, total, note))

    def checkpoint(self, _running: Any, value: Any) -> None:
        """Note a call of `ctx.checkpoint`."""
        self.checkpoints.append(decode_plain(encode_checkpoint(value)))

    def checkpointed(self, _running: Any) -> Any:
        """The last checkpoint, or the first one if there was none since."""
        return self.checkpoints[-1] if self.checkpoints else self._first


@overload
async def run_job(
    task: Task[None, R],
    *,
    deps: Any = None,
    client: BackfillClient | None = None,
    job_id: int = 1,
    attempt: int = 1,
    spec: JobSpec | None = None,
    stopping: bool = False,
    registry: TaskRegistry[Any] | None = None,
    progress: SaidProgress | None = None,
    scheduled_at: datetime | None = None,
    backfilled: bool = False,
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
    stopping: bool = False,
    registry: TaskRegistry[Any] | None = None,
    progress: SaidProgress | None = None,
    scheduled_at: datetime | None = None,
    backfilled: bool = False,
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
    stopping: bool = False,
    registry: TaskRegistry[Any] | None = None,
    progress: SaidProgress | None = None,
    scheduled_at: datetime | None = None,
    backfilled: bool = False,
) -> R:
    """Run one job's handler as a worker would, with its middleware, and return its result. No database is needed.

    `ctx.transaction()` opens a transaction on a connection of `client`, or takes that of the handler's own session, and
    commits it at the end of its block. No job is completed there, and no lease can be lost. What the handler says by
    `tx.complete` is the result then.

    The payload is written as JSON and read again, as on its way through a queue. The handler's own exception is raised,
    and so are `Snooze` and `Discard`. A `BatchFailed` by which a worker would have all items of the batch tried again,
    since it names one that is not there or is raised within `ctx.transaction()`, is a `ConfigurationError` here. The
    result of a task with `keep=` is written and read in the same way.

    Args:
        task: the task whose handler runs.
        payload: its payload. Left out, it is what a job without a payload gets.
        deps: what the context has as `deps`, in the place of what the registry's lifespan yields.
        client: what the context has as `client`. Left out, each use of `ctx.client` raises `ConfigurationError`, so
            that no test writes to a database by accident.
        job_id: the job's id.
        attempt: which run of the job this is, from 1.
        spec: how the job would be enqueued: its timeout goes before the task's, and `ctx.job` has its queue, priority,
            key, number of runs and flags. What it leaves unsaid is the task's.
        stopping: whether the worker is stopping from the start: `ctx.should_stop` and `ctx.stopping` are true then.
        registry: the registry that the worker would run. Left out, it is the one that made the task; name one that
            includes it, if the middleware of that one should run too.
        progress: takes what the handler says by `ctx.set_progress` and `ctx.checkpoint`, and has the checkpoint that it
            finds in `ctx.checkpointed`.
        scheduled_at: the run of a schedule that the job would be for, as `ctx.scheduled_at` gives it; aware of its
            zone.
        backfilled: whether the job would make up for a run that was missed.

    Raises:
        ConfigurationError: `task` is no task, or the handler raised a `BatchFailed` that is a mistake.
        InvalidJobError: `attempt` is less than 1, or `scheduled_at` has no zone.
        InvalidPayloadError: the payload or the result would not arrive as it is.
        TimeoutError: the handler or an async middleware ran longer than the timeout. A synchronous handler is asked to
            stop, by `ctx.should_stop`, as a worker does.
    """
    if not isinstance(task, Task):
        raise ConfigurationError(
            f"task = {type(task).__name__}: expected a task, and its payload as the next argument: "
            "run_job(task, payload)"
        )
    if attempt < 1:
        raise InvalidJobError("attempt", attempt, "at least 1: the first run of a job is 1")
    given = task.given(payload)
    text = task.encode(given)
    if scheduled_at is not None:
        check_time("scheduled_at", scheduled_at)
        text = with_run(text, Run(scheduled_at, backfilled))
    value = task.resolve()(text) if task.shape.payload is not None else None
    stop = threading.Event()
    if stopping:
        stop.set()
    lent = BackfillClient(_no_database) if client is None else client
    job = _job(task, text, given, spec or UNSAID, id=job_id, attempt=attempt)
    blocks = _Blocks(lent)
    context = WorkerContext(
        job=job, worker_id="run_job", deps=deps, client=lent, stop=stop, worker_stops=lambda: stopping,
        transactions=None if task.shape.in_process else cast("TransactionBlocks", blocks),
        reports=SaidProgress() if progress is None else progress,
    )  # fmt: skip
    middleware = task.middleware if registry is None else registry.middleware_of(task)
    whole = wrapped(task, middleware, lambda _: None)
    try:
        result = await _within(limits_of(job, task).seconds, whole, value, context, stop)
    except BatchFailed as error:
        left = left_of(job, error, is_batch=task.shape.batch, in_transaction=blocks.opened and blocks.committed is None)
        if left.mistake is not None:
            raise ConfigurationError(left.mistake) from error
        raise
    if blocks.committed is not None:
        result = blocks.committed.result
    return result if task.keep is None else task.decode_result(task.encode_result(result))


def _no_database() -> str:
    raise ConfigurationError(
        "run_job: the handler uses ctx.client, ctx.attempts() or ctx.transaction(), and no client was given; "
        "pass client=BackfillClient(...)"
    )


class _Blocks:
    """Makes the block of `ctx.transaction()` where there is no job to be completed at its end.

    Args:
        client: on whose connections the transactions are.

    Attributes:
        committed: the transaction that was committed; None where none was.
        opened: whether a block was begun.
    """

    def __init__(self, client: BackfillClient) -> None:
        self.client = client
        self.committed: CompletingTransaction | CompletingInThread | None = None
        self.opened = False
        self.loop = asyncio.get_running_loop()

    def block(self, _stop: object, isolation: IsolationLevel | None) -> _Block:
        """A block; the handler may open another one until one is committed."""
        self._open()
        return _Block(self, isolation)

    def session_block(self, _stop: object, session: object) -> _SessionBlock:
        """The same in the transaction of the handler's own session."""
        self._open()
        return _SessionBlock(self, session)

    def _open(self) -> None:
        if self.committed is not None:
            raise TransactionUseError("ctx.transaction(): the job is completed already")
        self.opened = True


class _Block:
    """A transaction of a handler that `run_job` runs, on the event loop or in a thread."""

    def __init__(self, blocks: _Blocks, isolation: IsolationLevel | None) -> None:
        self._blocks = blocks
        self._isolation = isolation

    async def __aenter__(self) -> HandlerTransaction:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(Blocks(self._blocks.client).connection())
            await stack.enter_async_context(as_handlers_have_it(connection, self._isolation))
            await stack.enter_async_context(connection.transaction())
            self._async_stack = stack.pop_all()
        self._tx: HandlerTransaction | ThreadTransaction = HandlerTransaction(connection, self._blocks.client)
        return self._tx

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tx.close()
        await self._async_stack.__aexit__(kind, error, trace)
        self._blocks.committed = self._tx if error is None else None

    def __enter__(self) -> ThreadTransaction:
        conninfo = on_loop(self._blocks.loop, Blocks(self._blocks.client).conninfo())
        with ExitStack() as stack:
            connection = stack.enter_context(closing(connected(conninfo)))
            connection.isolation_level = self._isolation
            stack.enter_context(connection.transaction())
            self._stack = stack.pop_all()
        self._tx = ThreadTransaction(connection, self._blocks.client, self._blocks.loop)
        return self._tx

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tx.close()
        self._stack.__exit__(kind, error, trace)
        self._blocks.committed = self._tx if error is None else None


class _SessionBlock:
    """The transaction of a handler's own session."""

    def __init__(self, blocks: _Blocks, session: object) -> None:
        self._blocks = blocks
        self._given = session

    async def __aenter__(self) -> CompletingTransaction:
        await self._begin(sync=False)
        self._tx: CompletingTransaction | CompletingInThread = CompletingTransaction(
            self._session.given, self._blocks.client
        )
        return self._tx

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tx.close()
        await (self._session.commit() if error is None else self._session.rollback())
        self._blocks.committed = self._tx if error is None else None

    def __enter__(self) -> CompletingInThread:
        at_once(self._begin(sync=True))
        self._tx = CompletingInThread(self._session, self._blocks.client, self._blocks.loop)
        return self._tx

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        at_once(self.__aexit__(kind, error, trace))

    async def _begin(self, *, sync: bool) -> None:
        self._session = borrowed(self._given, sync=sync)
        refuse_unfit(self._session)
        await begun(self._session, self._blocks.client.schema)


def _job(task: Task[Any, Any], text: bytes, payload: Any, spec: JobSpec, *, id: int, attempt: int) -> Job:
    """The row that a worker would have claimed."""
    defaults = task.defaults_for(payload, keyed=spec.job_key is not None)
    whole = replace(with_defaults(spec, defaults), unique_for=None)  # nothing is enqueued, so nothing is reserved
    shape = shape_of(task.identifier, whole, task.default_max_attempts, task)
    now = datetime.now(UTC)
    return Job(
        id=id,
        task_identifier=task.identifier,
        payload_bytes=text,
        attempts=attempt,
        max_attempts=shape.max_attempts,
        priority=shape.priority,
        queue_name=shape.queue,
        key=shape.key,
        flags=shape.flags,
        run_at_micros=micros(shape.run_at or now),
        created_at_micros=micros(now),
    )


async def _within(
    seconds: float | None, task: Task[Any, R], payload: Any, context: WorkerContext[Any], stop: threading.Event
) -> R:
    """The handler's result, if what runs on the loop does not run longer than so many seconds."""
    loop, in_thread = asyncio.get_running_loop(), False

    async def threads(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal in_thread
        in_thread = True
        try:
            return await asyncio.to_thread(function, *arguments)
        finally:
            in_thread = False

    def overrun() -> None:
        stop.set()
        if not in_thread:
            limit.reschedule(loop.time())

    limit = asyncio.timeout(seconds if task.shape.is_async else None)
    alarm = None if seconds is None or task.shape.is_async else loop.call_later(seconds, overrun)
    try:
        async with limit:
            return await task.invoke(payload, context, threads)
    finally:
        if alarm is not None:
            alarm.cancel()
