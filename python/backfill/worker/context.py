"""The context that a handler gets beside its payload."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from backfill.cancels import Cancellation
from backfill.errors import TransactionUseError
from backfill.logs import fields_of, trace_fields
from backfill.payloads.scheduled import run_of
from backfill.progress import checked_step, encode_checkpoint
from backfill.records import Job

if TYPE_CHECKING:
    from psycopg import IsolationLevel

    from backfill.attempts import AttemptRecord
    from backfill.client import BackfillClient
    from backfill.worker.execution.transaction_blocks import SessionBlock, TransactionBlock, TransactionBlocks

D = TypeVar("D")


class StopSignal(Protocol):
    """Says whether a handler should end; a `threading.Event` is one too."""

    def is_set(self) -> bool:
        """Whether the handler should end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, in a thread, until the handler should end, at most `timeout` seconds; return whether it should."""
        ...


class Reports(Protocol):
    """Takes what handlers say about their progress; in a worker it is the book of progress.

    Each method is given the attempt that it is about: the object that the context got as its stop signal.
    """

    def progress(self, running: Any, /, done: float, total: float | None = None, note: str | None = None) -> None:
        """Note how far an attempt has come."""
        ...

    def checkpoint(self, running: Any, value: Any, /) -> None:
        """Note a checkpoint of an attempt."""
        ...

    def checkpointed(self, running: Any, /) -> Any:
        """The last checkpoint of the attempt's job; None if there is none."""
        ...


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds its fields to the caller's `extra`; before Python 3.13 the standard adapter replaces the caller's."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the caller's `extra` into the adapter's; where both have a field, the caller's is taken."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class WorkerContext(Generic[D]):
    """A handler's second argument: the job it runs, and what its worker shares. `D` is what the lifespan yields.

    Attributes:
        job: the job's row, as it was claimed.
        worker_id: the id of the worker that runs the job.
        deps: what the registry's lifespan yielded; None where the registry has no lifespan.
        client: a client on the worker's own pool, to enqueue or read jobs with. It belongs to the worker: `close`, and
            the end of `async with ctx.client`, close nothing.
    """

    __slots__ = ("_reports", "_stop", "_transactions", "_worker_stops", "client", "deps", "job", "worker_id")

    def __init__(
        self,
        *,
        job: Job,
        worker_id: str,
        deps: D,
        client: BackfillClient,
        stop: StopSignal | None = None,
        worker_stops: Callable[[], bool] | None = None,
        reports: Reports | None = None,
        transactions: TransactionBlocks | None = None,
    ) -> None:
        self.job = job
        self.worker_id = worker_id
        self.deps = deps
        self.client = client
        self._stop: StopSignal = threading.Event() if stop is None else stop
        self._worker_stops = worker_stops
        self._reports = reports
        self._transactions = transactions

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task; its records carry the job's id, task and attempt, and the caller's `extra`."""
        name = f"backfill.task.{self.job.task_identifier}"
        return _JobLogger(logging.getLogger(name), fields_of(self.job) | trace_fields())

    @property
    def attempt(self) -> int:
        """Which run of the job this is; the first is 1."""
        return self.job.attempts

    def set_progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far this attempt has come; `client.progress(job)` reads it. Safe from any thread.

        The call only notes the values, so it may be made for every step of a loop. The worker writes the latest values
        of all its jobs once a second at most, and with the end of the attempt. Each call replaces all three values.

        Args:
            done: how much is done: a number from 0 to 2**53. It may be larger than `total`, which is often an estimate.
            total: how much there is in all; None if that is not known.
            note: a text for people, of at most 1,000 characters.

        Raises:
            InvalidJobError: one of the values cannot be used; the message names it.
        """
        if self._reports is None:
            checked_step(done, total, note)
        else:
            self._reports.progress(self._stop, done, total, note)

    def checkpoint(self, value: Any) -> None:
        """Note from where the next attempt of this job can go on; it finds the value in `checkpointed`.

        The value is plain JSON of at most 1 MiB, and is encoded at the call: later changes of it do not count. It is
        written as `set_progress` says, so an attempt that is killed may lose what it noted in its last second or two.
        Safe from any thread.

        Args:
            value: what the next attempt needs to know, such as the id of the last row that was done.

        Raises:
            InvalidPayloadError: the value has no form in JSON or is too large; the message names the place in it.
        """
        if self._reports is None:
            encode_checkpoint(value)
        else:
            self._reports.checkpoint(self._stop, value)

    @property
    def checkpointed(self) -> Any:
        """The value of the last `checkpoint` of this job, by this attempt or an earlier one; None if there is none."""
        return None if self._reports is None else self._reports.checkpointed(self._stop)

    async def attempts(self) -> list[AttemptRecord]:
        """Read which attempts of the job did not complete so far, as `client.attempts` does.

        This run is not among them. `attempt`, without an s, is the number of this run.

        Returns:
            The newest 20 of these attempts, oldest first.
        """
        return await self.client.attempts(self.job)

    @property
    def scheduled_at(self) -> datetime | None:
        """When the run of the schedule was due that the job was added for, in UTC; None where no schedule has added it.

        It is what the payload says under `_cron`. All attempts of a job have the same time.
        """
        run = run_of(self.job.payload_bytes)
        return None if run is None else run.at

    @property
    def backfilled(self) -> bool:
        """Whether the job makes up for a run that was missed, since no scheduler ran when it was due."""
        run = run_of(self.job.payload_bytes)
        return run is not None and run.backfilled

    @property
    def is_last_attempt(self) -> bool:
        """Whether no other attempt follows if this one fails, by the job's row as it was claimed.

        An error that must not be retried ends the job earlier; somebody may also change the row meanwhile.
        """
        return self.job.attempts >= self.job.max_attempts

    @property
    def should_stop(self) -> bool:
        """Whether the handler should end early. Safe from any thread.

        It should if the worker stops, the attempt is out of time, or the job was cancelled. Async handlers are
        cancelled then; synchronous ones must ask this property themselves.
        """
        return self._stop.is_set()

    @property
    def stopping(self) -> bool:
        """Whether `should_stop` is true because the worker stops, or has lost the job. Safe from any thread.

        If it is, a handler that ends early should raise `Snooze(timedelta(0))`, which costs no attempt. It is False
        where the attempt is out of time and the worker goes on; then the handler should raise an error.
        """
        return self._worker_stops is not None and self._worker_stops()

    @property
    def cancelled_by(self) -> Cancellation | None:
        """Who has cancelled the job while it runs, and why; None where nobody has. Safe from any thread.

        If somebody has, `should_stop` is true, and the job is not tried again, whatever the handler raises. If the
        handler returns, the job is completed.
        """
        return getattr(self._stop, "cancellation", None)

    @overload
    def transaction(self, session: None = None, *, isolation: IsolationLevel | None = None) -> TransactionBlock: ...
    @overload
    def transaction(self, session: object, *, isolation: None = None) -> SessionBlock: ...
    def transaction(
        self, session: object = None, *, isolation: IsolationLevel | None = None
    ) -> TransactionBlock | SessionBlock:
        """Open a transaction in which the job is completed: what the handler writes in it takes effect exactly once.

        `async with ctx.transaction() as tx:` in an async handler, `with ctx.transaction() as tx:` in a synchronous one.
        Write on `tx.connection`, and enqueue with `tx.enqueue`. At the end of the block the job is completed and all is
        committed as one. If the block ends with an error, all is rolled back, and the attempt ends as by any error.

        With a session of SQLAlchemy, `async with ctx.transaction(session) as tx:`, the transaction is the session's:
        the job is completed in it, and the end of the block commits it or rolls it back. `tx` has no connection then.

        Args:
            session: an AsyncSession or AsyncConnection in an async handler, a Session or Connection in a synchronous
                one; its database is the queue's. Left out, the worker opens a transaction on a connection of its own.
            isolation: the isolation level; `read committed` if not given. Above that, the job's lock is not renewed
                while the block is open. A session has its own.

        Raises:
            TransactionUseError: a block is open, the job is completed already, this context has no transactions, or the
                session cannot be used.
            LeaseLostError: at the end of the block: the job is not this worker's any more, and nothing was committed.
            DatabaseConnectionError: there was no connection, or it was lost, and nothing was committed.

        Example:
            >>> @tasks.task("pay")
            ... async def pay(order: Order, ctx: WorkerContext) -> None:
            ...     async with ctx.transaction() as tx:
            ...         await tx.connection.execute("update orders set paid = true where id = %s", [order.id])
            ...         await tx.enqueue("send_receipt", {"order": order.id})
        """
        if self._transactions is None:
            raise TransactionUseError(
                "ctx.transaction() is for handlers that run on the worker's event loop or in a thread: a task with "
                'run_in="process" completes its job when it returns, so leave run_in out for this one. A test gets a '
                "context with transactions by backfill.testing.run_job"
            )
        if session is None:
            return self._transactions.block(self._stop, isolation)
        if isolation is not None:
            raise TransactionUseError(
                "ctx.transaction(session, isolation=...): a session has its own level; say it to SQLAlchemy, as by "
                'session.connection(execution_options={"isolation_level": "SERIALIZABLE"}) before the block'
            )
        return self._transactions.session_block(self._stop, session)

    def __repr__(self) -> str:
        """The job and the worker."""
        return f"WorkerContext({self.job!r}, worker_id={self.worker_id!r})"
