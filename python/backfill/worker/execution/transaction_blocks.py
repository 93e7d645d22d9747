"""What `ctx.transaction()` gives: a block that is entered by `async with` on the loop, and by `with` in a thread."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from psycopg import IsolationLevel

from backfill.errors import TransactionUseError
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.own_transactions import OwnTransactions
from backfill.worker.execution.thread_transactions import OpenedInThread, ThreadTransaction
from backfill.worker.execution.transactions import HandlerTransaction, OpenedOnLoop

if TYPE_CHECKING:
    from backfill.client import BackfillClient
    from backfill.worker.context import StopSignal


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
            raise TransactionUseError("ctx.transaction(): a block is entered once; call ctx.transaction() again")


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


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
