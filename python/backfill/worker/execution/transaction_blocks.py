"""What `ctx.transaction()` gives: a block that is entered by `async with` on the loop, and by `with` in a thread."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Final

from psycopg import IsolationLevel

from backfill.client.borrowed import Borrowed, borrowed
from backfill.client.carrier import at_once
from backfill.errors import TransactionUseError
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.own_transactions import OwnTransactions
from backfill.worker.execution.session_transactions import InThread, OnLoop, OpenedOnSession
from backfill.worker.execution.shielded import shielded
from backfill.worker.execution.thread_transactions import CompletingInThread, OpenedInThread, ThreadTransaction
from backfill.worker.execution.transactions import CompletingTransaction, HandlerTransaction, OpenedOnLoop

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.worker.context import StopSignal


_ONCE: Final = "ctx.transaction(): a block is entered once; call ctx.transaction() again"


class TransactionBlock:
    """A block of a handler's code whose end completes the handler's job; it is entered once.

    Args:
        blocks: makes the transaction once the block is entered.
        running: the attempt.
        isolation: the isolation level.
    """

    def __init__(self, blocks: TransactionBlocks, running: HeldJob, isolation: IsolationLevel) -> None:
        self._blocks = blocks
        self._running = running
        self._isolation = isolation
        self._on_loop: OpenedOnLoop | None = None
        self._in_thread: OpenedInThread | None = None

    async def __aenter__(self) -> HandlerTransaction:
        """Open the transaction of a handler that runs on the event loop."""
        self._refuse_again()
        opened = OpenedOnLoop(self._blocks.owner, self._blocks.client, self._running, self._isolation)
        self._on_loop = opened
        return await opened.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the job and commit, or roll back."""
        if self._on_loop is not None:
            await self._on_loop.end(error)

    def __enter__(self) -> ThreadTransaction:
        """Open the transaction of a handler that runs in a thread."""
        self._refuse_again()
        if _on_a_loop():
            raise TransactionUseError("ctx.transaction(): an async handler enters it by `async with`")
        opened = OpenedInThread(self._blocks.owner, self._blocks.client, self._running, self._isolation)
        self._in_thread = opened
        return opened.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the job and commit, or roll back."""
        if self._in_thread is not None:
            self._in_thread.end(error)

    def _refuse_again(self) -> None:
        if self._on_loop is not None or self._in_thread is not None:
            raise TransactionUseError(_ONCE)


class SessionBlock:
    """A block whose end completes the handler's job in the transaction of the handler's own session.

    Args:
        blocks: what the worker's blocks share.
        running: the attempt.
        session: the session, of the kind that the handler is.
    """

    def __init__(self, blocks: TransactionBlocks, running: HeldJob, session: object) -> None:
        self._blocks = blocks
        self._running = running
        self._session = session
        self._opened: OpenedOnSession | None = None

    async def __aenter__(self) -> CompletingTransaction:
        """Open the transaction of a handler that runs on the event loop."""
        session, owner = borrowed(self._session, sync=False), self._blocks.owner
        opened = self._open(session, OnLoop())
        tx = CompletingTransaction(session.given, self._blocks.client, owner, self._running)
        await opened.begin(tx)
        return tx

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the job and commit, or roll back."""
        if self._opened is not None:
            await (self._opened.end(error) if error is not None else shielded(self._opened.end(None)))

    def __enter__(self) -> CompletingInThread:
        """Open the transaction of a handler that runs in a thread."""
        if _on_a_loop():
            raise TransactionUseError("ctx.transaction(): an async handler enters it by `async with`")
        session, owner = borrowed(self._session, sync=True), self._blocks.owner
        opened = self._open(session, InThread(owner.loop))
        tx = CompletingInThread(session, self._blocks.client, owner.loop, owner, self._running)
        at_once(opened.begin(tx))
        return tx

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the job and commit, or roll back."""
        if self._opened is not None:
            at_once(self._opened.end(error))

    def _open(self, session: Borrowed, place: OnLoop) -> OpenedOnSession:
        if self._opened is not None:
            raise TransactionUseError(_ONCE)
        self._opened = OpenedOnSession(self._blocks.owner, self._running, session, place)
        return self._opened


class TransactionBlocks:
    """Makes the blocks of all handlers of one worker.

    Args:
        owner: what the worker's transactions share.
        client: the handlers' client.
    """

    def __init__(self, owner: OwnTransactions, client: BackfillClient) -> None:
        self.owner = owner
        self.client = client

    def block(self, stop: StopSignal, isolation: IsolationLevel | None) -> TransactionBlock:
        """The block for one attempt, which its context knows as the signal that tells it to stop."""
        assert isinstance(stop, HeldJob)  # noqa: S101 - `Contexts` makes such contexts alone
        return TransactionBlock(self, stop, IsolationLevel.READ_COMMITTED if isolation is None else isolation)

    def session_block(self, stop: StopSignal, session: object) -> SessionBlock:
        """The block for one attempt whose handler has a session of its own."""
        assert isinstance(stop, HeldJob)  # noqa: S101 - see above
        return SessionBlock(self, stop, session)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
