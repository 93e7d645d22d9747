"""`ctx.transaction(session)`: a job is completed in the transaction that a handler's own session has.

The steps are written once, as coroutines, for handlers on the event loop and for those in threads. A synchronous
library's calls never wait for a loop, so a thread runs the steps to their end by `at_once`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from backfill.client.borrowed import Borrowed, ask, is_lost, runs_code_at_commit, sent, unfit
from backfill.client.carrier import is_idle, known_by, sqlstate_of
from backfill.errors import BackfillError, DatabaseConnectionError, LeaseLostError, TransactionUseError
from backfill.said import said, stripping
from backfill.storage.arrays import number_array
from backfill.storage.attempts import read_locks
from backfill.storage.commits import TransactionId, read_id
from backfill.worker.execution.endings import GIVEN_BACK, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.own_transactions import ANSWER_SECONDS, OwnTransactions, driven, have_row
from backfill.worker.execution.thread_transactions import on_loop
from backfill.worker.execution.transactions import ROLLBACK_SECONDS, refuse_abandoned

if TYPE_CHECKING:
    from backfill.client.carrier import AnyConnection
    from backfill.worker.execution.completing import Commands

T = TypeVar("T")

_FAILED = "25P02"
"""The server's code for a statement in a transaction that an error has broken."""
_EARLY = (
    "ctx.transaction(): the session's transaction has begun before the block, at an isolation level at which it does "
    "not see what others write meanwhile; but the claim of an express task's job is written at the block's begin. "
    "Open the block before the session's first statement, or leave out express=True"
)


class Ended(Protocol):
    """What the handler has of its transaction."""

    def ended(self) -> Ending | None:
        """How the attempt ends by the transaction, which cannot be used any more."""
        ...

    def close(self) -> None:
        """Refuse all further use."""
        ...


class OnLoop:
    """Where the handler runs: on the worker's event loop."""

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A block that may take so many seconds."""
        return asyncio.timeout(seconds)

    async def have(self, work: Coroutine[Any, Any, T]) -> T:
        """What work on the worker's event loop gives."""
        return await work

    def tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """Make a call on the worker's event loop."""
        call(*arguments)


class InThread(OnLoop):
    """Where the handler runs: in a thread, which is blocked while the worker's event loop does some work for it.

    Args:
        loop: the worker's event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:  # noqa: ARG002 - nobody can end it
        """A block without a limit: the thread waits as long as the driver does."""
        return nullcontext()

    async def have(self, work: Coroutine[Any, Any, T]) -> T:
        """What work on the worker's event loop gives."""
        return on_loop(self._loop, work)

    def tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """Make a call on the worker's event loop."""
        with suppress(RuntimeError):  # the loop is closed: nobody counts shares any more
            self._loop.call_soon_threadsafe(call, *arguments)


class OpenedOnSession:
    """The block of a handler that has a session of its own.

    Args:
        owner: what the worker's transactions share.
        running: the attempt.
        session: the handler's session.
        place: where the handler runs.
    """

    def __init__(self, owner: OwnTransactions, running: HeldJob, session: Borrowed, place: OnLoop) -> None:
        self._owner = owner
        self._running = running
        self._session = session
        self._place = place
        refuse_unfit(session)
        self._own = owner.enter(running, quiet=True)

    async def begin(self, tx: Ended) -> None:
        """Open the transaction, or take note of the one that the session has.

        Raises:
            TransactionUseError: the session is in autocommit; or it sees the database as it was before the claim was
                written into the job's row, so that it could not delete that row.
            LeaseLostError: the job is not this attempt's any more.

        The driver's errors come out unchanged.
        """
        try:
            was_there = self._running.claim.in_row
            await self._place.have(have_row(self._running))
            await self._place.have(self._owner.wait_for_writes())
            async with self._place.within(ANSWER_SECONDS):
                self._begun = await begun(self._session, self._owner.blocks.schema)
                if not (was_there or self._begun.is_read_committed or await self._sees_claim()):
                    raise TransactionUseError(_EARLY)
        except BaseException:
            self._own.is_open = self._own.quiet = False
            raise
        self._own.quiet = not self._begun.is_read_committed
        self._tx = tx
        self._own.block = self

    async def _sees_claim(self) -> bool:
        return await sees_claim(self._session, self._running, self._owner.blocks.schema, self._owner.worker_id)

    async def abandon(self) -> None:
        """Roll back, and close the session's connection: code that goes on with it must not write by it any more."""
        self._own.is_open = self._own.quiet = False
        self._tx.close()
        await self._discard()

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
                await self._complete()
            else:
                await self._roll_back()
        finally:
            self._tx.close()
            self._own.is_open = self._own.quiet = self._own.completing = False

    async def _complete(self) -> None:
        ending = self._tx.ended()
        assert ending is not None  # noqa: S101 - there is a job
        running, own = self._running, self._own
        try:
            completion = await self._written(ending)
        except BaseException as error:
            await self._roll_back()
            if isinstance(error, LeaseLostError):
                own.ending = GIVEN_BACK
            raise
        failure, lost = None, False
        try:
            with stripping():
                async with self._place.within(ANSWER_SECONDS):
                    await self._session.commit()
        except Exception as error:  # noqa: BLE001 - code of the program's own runs in a commit, also behind it
            failure = error
        if failure is None and runs_code_at_commit(self._session.given):
            if not await self._place.have(self._owner.look_back(running, completion)):
                raise TransactionUseError(
                    "ctx.transaction(): a listener of the session's commit has broken or ended the transaction, and "
                    "the server has rolled it back; run what may fail there within `begin_nested()`"
                )
        elif failure is not None:
            lost = is_lost(failure, self._driver)
            await (self._discard() if lost else self._roll_back())
            if not await self._place.have(self._owner.look_back(running, completion)):
                if not lost:
                    raise failure
                raise DatabaseConnectionError(
                    f"the connection was lost at the commit of ctx.transaction(): {said(failure)}; nothing was written"
                ) from failure
        self._owner.committed(running)
        self._place.tell(self._owner.followed, running, completion)
        if failure is not None and not lost:
            raise failure  # of code that runs behind the commit

    async def _written(self, ending: Ending) -> Any:
        """Send what the session holds, and complete the job as the last that the transaction does."""
        self._driver: Any = None
        try:
            await self._session.flush()
            async with self._place.within(ANSWER_SECONDS), self._session.lent() as connection:
                self._driver = known_by(connection)
                self._own.completing = True
                steps = self._owner.completing(self._running, ending, self._begun)
                return await driven(steps, lambda asked: self._sent(connection, asked))
        except BackfillError:
            raise
        except Exception as error:
            if sqlstate_of(error) == _FAILED or type(error).__name__ == "PendingRollbackError":
                raise TransactionUseError(
                    "ctx.transaction(): a statement failed, or the connection was lost, and the handler caught the "
                    "error, so that nothing of the block can be committed; run what may fail within `begin_nested()`, "
                    "which makes a savepoint"
                ) from error
            if is_lost(error, self._driver):
                raise DatabaseConnectionError(
                    f"the connection was lost before the end of ctx.transaction(): {said(error)}; nothing was written"
                ) from error
            raise

    async def _sent(self, connection: AnyConnection, commands: Commands) -> list[Any]:
        if is_idle(connection):  # a statement alone would be committed by itself
            raise TransactionUseError(
                "ctx.transaction(): the session's transaction was committed or rolled back within the block; the block "
                "commits at its end, and savepoints are made by `begin_nested()`"
            )
        return await sent(connection, commands, schema=self._owner.blocks.schema, seconds=ANSWER_SECONDS)

    async def _roll_back(self) -> None:
        try:
            async with self._place.within(ROLLBACK_SECONDS):
                await self._session.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, the server undoes what is not committed
            await self._discard()
        except BaseException:
            await self._discard()
            raise

    async def _discard(self) -> None:
        with suppress(Exception):  # the session is in use, or its connection is closed already
            await self._session.discard()


def refuse_unfit(session: Borrowed) -> None:
    """Refuse a session in whose transaction a job cannot be completed.

    Raises:
        TransactionUseError: it cannot; the message says why.
    """
    reason = unfit(session.given)
    if reason is not None:
        raise TransactionUseError(f"ctx.transaction(): {reason}")


async def sees_claim(session: Borrowed, running: HeldJob, schema: str, worker: str) -> bool:
    """Whether the session's transaction sees the claim in the row of an attempt's job."""
    async with session.lent() as connection:
        with stripping():
            found = await ask(connection, "find_held_locks", schema, (worker, number_array([running.job.id])))
    return running.job.id in read_locks(found)


async def begun(session: Borrowed, schema: str) -> TransactionId:
    """The transaction that a session has; it begins where none is open.

    Raises:
        TransactionUseError: the session is in autocommit.
    """
    async with session.lent() as connection:
        with stripping():
            transaction = read_id(await ask(connection, "read_transaction", schema))
        if is_idle(connection):
            raise TransactionUseError(
                "ctx.transaction(): the session is in autocommit, where each statement commits by itself: use one "
                "whose isolation_level is not AUTOCOMMIT"
            )
    return transaction
