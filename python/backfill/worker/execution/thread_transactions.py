"""`ctx.transaction()` for synchronous handlers in their threads, on a connection that is made for the block."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import psycopg
from psycopg import IsolationLevel

from backfill.client.blocks import shaped, write_blocking
from backfill.client.borrowed import Borrowed, ask
from backfill.client.carrier import at_once
from backfill.errors import DatabaseConnectionError, LeaseLostError, TransactionUseError
from backfill.payloads import NOTHING
from backfill.said import said
from backfill.storage.connection import unreachable
from backfill.storage.unprepared import send_blocking
from backfill.storage.wire import Command
from backfill.worker.execution.completing import Completion
from backfill.worker.execution.endings import GIVEN_BACK, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.own_transactions import ANSWER_SECONDS, OwnTransactions, driven_here, have_row
from backfill.worker.execution.transactions import refuse_abandoned, refuse_ended

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.client.prepare import JobKeywords, Parameters
    from backfill.jobs import EnqueueOutcome, JobSpec, NewJob
    from backfill.storage.results import Result
    from backfill.tasks import Task

T = TypeVar("T")


class CompletingInThread:
    """An open transaction of a synchronous handler, at whose commit its job is completed.

    It is what `with ctx.transaction(session) as tx` gives; the handler writes on that session.

    Args:
        connection: the connection or session on which it is open.
        client: knows the queue, and the plugins that are asked before a job is added.
        loop: the worker's event loop.
        owner: makes the ending that keeps a result.
        running: the attempt; None where there is no job to be completed (`backfill.testing.run_job`).
    """

    def __init__(
        self,
        connection: Any,
        client: BackfillClient,
        loop: asyncio.AbstractEventLoop,
        owner: OwnTransactions | None = None,
        running: HeldJob | None = None,
    ) -> None:
        self._connection = connection
        self._client = client
        self._loop = loop
        self._owner = owner
        self._running = running
        self._over: str | None = None
        self._ending: Ending | None = None
        self._result: Any = None

    def enqueue(
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
        connection = self._usable()
        checked = on_loop(self._loop, shaped(self._client, job, payload, spec, keywords))
        return write_blocking(lambda name, values: self._written(connection, name, values), checked)

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

    def _written(self, connection: Any, name: str, parameters: Parameters) -> Result:
        """Run a statement on a connection, and return its binary result."""
        return at_once(self._asked(connection, name, parameters))

    async def _asked(self, session: Borrowed, name: str, parameters: Parameters) -> Result:
        async with session.lent() as connection:
            return await ask(connection, name, self._client.schema, parameters)


class ThreadTransaction(CompletingInThread):
    """A transaction on a connection that was made for the block, as `with ctx.transaction() as tx` gives it."""

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The psycopg connection to write on; what is written is committed with the job's completion.

        Raises:
            TransactionUseError: `complete` was called, or the block is over.
        """
        connection: psycopg.Connection[Any] = self._usable()
        return connection

    def _written(self, connection: Any, name: str, parameters: Parameters) -> Result:
        texts = [value.decode() if isinstance(value, bytes) else value for value in parameters]
        [result] = send_blocking(connection, [Command.of(name, self._client.schema, *texts)], timeout=ANSWER_SECONDS)
        return result


class OpenedInThread:
    """The block of a handler in a thread.

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
        self._slot = owner.blocks.slot()
        self._has_slot = False
        self._connection: psycopg.Connection[Any] | None = None

    def begin(self) -> ThreadTransaction:
        """Open the transaction.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            LeaseLostError: the job is not this attempt's any more.
        """
        try:
            if not self._running.claim.in_row:
                on_loop(self._owner.loop, have_row(self._running))
            on_loop(self._owner.loop, self._slot.__aenter__())
            self._has_slot = True
            if self._own.quiet:
                on_loop(self._owner.loop, self._owner.wait_for_writes())
            self._connection = connection = connected(on_loop(self._owner.loop, self._owner.blocks.conninfo()))
            connection.isolation_level = self._isolation
            connection.deferrable = True  # it marks the block's transaction, see read_transaction.sql
            self._transaction = connection.transaction()
            self._transaction.__enter__()
        except BaseException:
            self._own.is_open = self._own.quiet = False
            self._release()
            raise
        self._tx = ThreadTransaction(connection, self._client, self._owner.loop, self._owner, self._running)
        self._own.block = self
        return self._tx

    async def abandon(self) -> None:
        """Roll back, and give back what the block has taken; nobody will end it. It is called on the event loop."""
        self._own.is_open = self._own.quiet = False
        self._tx.close()
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        if self._has_slot:
            self._has_slot = False
            await self._slot.__aexit__(None, None, None)

    def end(self, error: BaseException | None) -> None:
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
                self._complete()
        finally:  # a connection that is closed rolls back
            self._tx.close()
            self._own.is_open = self._own.quiet = self._own.completing = False
            self._release()

    def _complete(self) -> None:
        ending = self._tx.ended()
        running, own, connection = self._running, self._own, self._connection
        assert ending is not None and connection is not None  # noqa: S101, PT018 - there is a job, and a block
        refuse_ended(connection)
        own.completing = True
        try:
            completion: Completion = driven_here(
                self._owner.completing(running, ending),
                lambda asked: send_blocking(connection, asked, timeout=ANSWER_SECONDS),
            )
        except LeaseLostError:
            own.ending = GIVEN_BACK
            raise
        try:
            self._transaction.__exit__(None, None, None)
        except (psycopg.Error, OSError) as error:
            if isinstance(error, psycopg.Error) and not connection.closed:
                raise
            connection.close()
            if not on_loop(self._owner.loop, self._owner.look_back(running, completion)):
                raise DatabaseConnectionError(
                    f"the connection was lost at the commit of ctx.transaction(): {said(error)}; nothing was written"
                ) from error
        self._owner.committed(running)
        with suppress(RuntimeError):  # the loop is closed: nobody counts shares any more
            self._owner.loop.call_soon_threadsafe(self._owner.followed, running, completion)

    def _release(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        if self._has_slot:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for a slot any more
                on_loop(self._owner.loop, self._slot.__aexit__(None, None, None))


def connected(conninfo: str) -> psycopg.Connection[Any]:
    """A synchronous connection in autocommit, on which nothing is prepared.

    Raises:
        DatabaseConnectionError: the server cannot be reached.
    """
    try:
        return psycopg.Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise unreachable(conninfo, error) from error


def on_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Have the worker's event loop do some work, wait for it in this thread, and return what it gives.

    Raises:
        RuntimeError: the loop is closed.
    """
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result()
    except RuntimeError:
        work.close()
        raise
