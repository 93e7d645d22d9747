"""`ctx.transaction()` for handlers on the event loop: their writes and their job's completion are committed as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from backfill.errors import DatabaseConnectionError, LeaseLostError, TransactionUseError
from backfill.payloads import NOTHING
from backfill.said import said
from backfill.storage.unprepared import send_unprepared
from backfill.worker.execution.endings import GIVEN_BACK, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.own_transactions import ANSWER_SECONDS, OwnTransactions, driven, have_row
from backfill.worker.execution.shielded import shielded

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.client.prepare import JobKeywords
    from backfill.jobs import EnqueueOutcome, JobSpec, NewJob
    from backfill.storage.types import Connection
    from backfill.tasks import PayloadOf, Task

P = TypeVar("P")
R = TypeVar("R")

ROLLBACK_SECONDS: Final = 5.0
"""Seconds that a rollback may take; then the connection is closed, which rolls back too."""
_TRIES: Final = 3


class CompletingTransaction:
    """An open transaction of a handler, at whose commit its job is completed.

    It is what `async with ctx.transaction(session) as tx` gives; the handler writes on that session.

    Args:
        connection: the connection or session on which it is open.
        client: enqueues jobs in it.
        owner: makes the ending that keeps a result.
        running: the attempt; None where there is no job to be completed (`backfill.testing.run_job`).
    """

    def __init__(
        self,
        connection: Any,
        client: BackfillClient,
        owner: OwnTransactions | None = None,
        running: HeldJob | None = None,
    ) -> None:
        self._connection = connection
        self._client = client
        self._owner = owner
        self._running = running
        self._over: str | None = None
        self._ending: Ending | None = None
        self._result: Any = None

    @overload
    async def enqueue(
        self, job: NewJob[R], /, *, spec: JobSpec | None = None, **keywords: Unpack[JobKeywords]
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self, task: Task[None, R], /, *, spec: JobSpec | None = None, **keywords: Unpack[JobKeywords]
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self,
        task: Task[P, R],
        /,
        payload: PayloadOf[P],
        *,
        spec: JobSpec | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[R]: ...
    @overload
    async def enqueue(
        self, task: str, /, payload: object = NOTHING, *, spec: JobSpec | None = None, **keywords: Unpack[JobKeywords]
    ) -> EnqueueOutcome[Any]: ...
    async def enqueue(
        self,
        job: NewJob[Any] | Task[Any, Any] | str,
        /,
        payload: Any = NOTHING,
        *,
        spec: JobSpec | None = None,
        **keywords: Unpack[JobKeywords],
    ) -> EnqueueOutcome[Any]:
        """Add a job in this transaction, as `client.enqueue` does: it is there if this job's completion is.

        Args:
            job: as of `BackfillClient.enqueue`, which also says what is raised.
            payload: what its handler gets.
            spec: a bundle of settings.
            keywords: the settings, one by one.

        Raises:
            TransactionUseError: `complete` was called, or the block is over.
        """
        enqueue: Any = self._client.enqueue
        outcome: EnqueueOutcome[Any] = await enqueue(
            job, *([] if payload is NOTHING else [payload]), spec=spec, connection=self._usable(), **keywords
        )
        return outcome

    def complete(self, result: Any = None) -> None:
        """Say what the job came to. The job is completed at the end of the block, as the last that is written.

        A block that is left without this call completes its job too, with None as the result.

        Args:
            result: the result, of the type that the handler's annotation names, kept where the task keeps its jobs'
                ends. What the handler returns is not kept.

        Raises:
            TransactionUseError: it was called before, or the block is over.
        """
        self._usable()
        self._over = "tx.complete() was called, and the job is completed after all that was written before it"
        self._result = result
        if self._owner is not None and self._running is not None:
            self._ending = self._owner.encoded(self._running, result)

    @property
    def result(self) -> Any:
        """What `complete` was called with; None before that."""
        return self._result

    def ended(self) -> Ending | None:
        """How the attempt ends by this transaction, which cannot be used any more."""
        if self._over is None:
            self.complete()
        self.close()
        return self._ending

    def close(self) -> None:
        """Refuse all further use."""
        self._over = "the block of ctx.transaction() is over"

    def _usable(self) -> Any:
        if self._over is not None:
            raise TransactionUseError(f"tx: {self._over}")
        return self._connection


class HandlerTransaction(CompletingTransaction):
    """A transaction on a connection of the worker's, as `async with ctx.transaction() as tx` gives it."""

    @property
    def connection(self) -> psycopg.AsyncConnection[Any]:
        """The psycopg connection to write on; what is written is committed with the job's completion.

        It takes `%s` placeholders, and gives rows as tuples. Use `set local` where you change a setting, since the
        connection goes back to the worker's pool.

        Raises:
            TransactionUseError: `complete` was called, or the block is over.
        """
        connection: Connection = self._usable()
        return connection


class OpenedOnLoop:
    """The block of a handler on the event loop.

    Args:
        owner: what the worker's transactions share.
        client: the handlers' client.
        running: the attempt.
        isolation: the isolation level.
    """

    def __init__(
        self, owner: OwnTransactions, client: BackfillClient, running: HeldJob, isolation: IsolationLevel
    ) -> None:
        self._owner = owner
        self._client = client
        self._running = running
        self._isolation = isolation
        self._own = owner.enter(running, quiet=isolation > IsolationLevel.READ_COMMITTED)
        self._stack = AsyncExitStack()

    async def begin(self) -> HandlerTransaction:
        """Open the transaction.

        Raises:
            DatabaseConnectionError: there was no connection in time.
            LeaseLostError: the job is not this attempt's any more.
        """
        try:
            await have_row(self._running)
            if self._own.quiet:
                await self._owner.wait_for_writes()
            self._connection, self._transaction = await self._begun()
        except BaseException:
            self._own.is_open = self._own.quiet = False
            raise
        self._tx = HandlerTransaction(self._connection, self._client, self._owner, self._running)
        self._own.block = self
        return self._tx

    async def abandon(self) -> None:
        """Roll back, and give back what the block has taken; nobody will end it.

        The connection is closed, since code that goes on with it must not write by it any more.
        """
        self._own.is_open = self._own.quiet = False
        self._tx.close()
        await self._connection.close()
        await self._release()

    async def end(self, error: BaseException | None) -> None:
        """Complete the job and commit; roll back where the block ends with an error.

        Raises:
            LeaseLostError: the job is not this attempt's any more, and nothing was committed.
            DatabaseConnectionError: the connection was lost, and nothing was committed.
            TransactionUseError: the handler has ended the transaction, or has caught an error that broke it.
        """
        if not self._own.is_open:
            refuse_abandoned(error)
            return
        try:
            if error is None:
                await shielded(self._complete())
            else:
                await self._roll_back(error)
        finally:
            self._tx.close()
            self._own.is_open = self._own.quiet = self._own.completing = False
            await self._release()

    async def _begun(self) -> tuple[Connection, AbstractAsyncContextManager[Any]]:
        """A connection with an open transaction; one that turns out to be dead is replaced by another one."""
        for left in reversed(range(_TRIES)):
            connection = await self._stack.enter_async_context(self._owner.blocks.connection())
            try:
                await self._stack.enter_async_context(as_handlers_have_it(connection, self._isolation))
                transaction = connection.transaction()
                await transaction.__aenter__()
            except psycopg.OperationalError as error:
                await self._release()
                if not left or not connection.closed:
                    raise DatabaseConnectionError(
                        f"ctx.transaction() could not begin: {said(error)}; nothing was written"
                    ) from error
            except BaseException:
                await self._release()
                raise
            else:
                return connection, transaction
        raise AssertionError("unreachable")

    async def _complete(self) -> None:
        ending = self._tx.ended()
        assert ending is not None  # noqa: S101 - there is a job
        running, own, connection = self._running, self._own, self._connection
        try:
            refuse_ended(connection)
            own.completing = True
            completion = await driven(
                self._owner.completing(running, ending),
                lambda asked: send_unprepared(connection, asked, timeout=ANSWER_SECONDS),
            )
        except BaseException as error:
            await self._roll_back(error)
            if isinstance(error, LeaseLostError):
                own.ending = GIVEN_BACK
            raise
        if not await self._committed():
            lost = said(self._lost) if self._lost is not None else "no answer"
            if not await self._owner.look_back(running, completion):
                raise DatabaseConnectionError(
                    f"the connection was lost at the commit of ctx.transaction(): {lost}; nothing was written"
                ) from self._lost
        self._owner.committed(running)
        self._owner.followed(running, completion)

    async def _committed(self) -> bool:
        """Commit; return whether the server has answered. What it refuses is raised, and was rolled back."""
        self._lost: BaseException | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._transaction.__aexit__(None, None, None)
        except (psycopg.Error, TimeoutError, OSError) as error:
            if isinstance(error, psycopg.Error) and not self._connection.closed:
                raise
            self._lost = error
            with suppress(psycopg.Error, OSError):
                await self._connection.close()
            return False
        return True

    async def _roll_back(self, error: BaseException) -> None:
        if self._connection.closed:
            return
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS):
                await self._transaction.__aexit__(type(error), error, error.__traceback__)
        except (psycopg.Error, TimeoutError, OSError):
            await self._connection.close()
        except BaseException:
            await self._connection.close()
            raise

    async def _release(self) -> None:
        """Give the connection back, clean or closed."""
        connection = getattr(self, "_connection", None)
        if connection is not None and connection.pgconn.transaction_status not in (
            TransactionStatus.IDLE, TransactionStatus.UNKNOWN,
        ):  # fmt: skip
            await connection.close()
        await self._stack.aclose()


def refuse_abandoned(error: BaseException | None) -> None:
    """Refuse the end of a block that was rolled back already; an error that leaves it may go on.

    Raises:
        TransactionUseError: no error leaves the block.
    """
    if error is None:
        raise TransactionUseError(
            "ctx.transaction(): the block was rolled back, since its handler has returned before the block's end"
        )


@asynccontextmanager
async def as_handlers_have_it(connection: Connection, isolation: IsolationLevel | None) -> AsyncIterator[None]:
    """Set a connection up as psycopg's users know it, and restore our settings after that."""
    before = connection.row_factory, connection.cursor_factory, connection.isolation_level, connection.deferrable
    connection.row_factory, connection.cursor_factory = tuple_row, psycopg.AsyncCursor
    await connection.set_isolation_level(isolation)
    await connection.set_deferrable(True)  # it marks the block's transaction, see read_transaction.sql
    try:
        yield
    finally:
        connection.row_factory, connection.cursor_factory = before[:2]
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            await connection.set_isolation_level(before[2])
            await connection.set_deferrable(before[3])


def refuse_ended(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Refuse to complete a job in a transaction that cannot be committed, or is over.

    Raises:
        DatabaseConnectionError: the connection was lost.
        TransactionUseError: an error has broken the transaction, or the handler has ended it.
    """
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.INTRANS:
        return
    if connection.closed:
        raise DatabaseConnectionError(
            "the connection was lost before the end of ctx.transaction(): nothing was written"
        )
    if status == TransactionStatus.INERROR:
        raise TransactionUseError(
            "ctx.transaction(): a statement failed, and the handler caught its error, so that nothing of the block can "
            "be committed; run what may fail within `async with tx.connection.transaction()`, which makes a savepoint"
        )
    raise TransactionUseError(
        "ctx.transaction(): the handler has ended the transaction itself, or has left a statement under way; the block "
        "commits at its end"
    )
