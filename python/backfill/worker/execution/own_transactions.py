"""What all transactions of a worker's handlers share: who may open one, and what follows once one is committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import psycopg

from backfill.client import BackfillClient
from backfill.client.blocks import Blocks
from backfill.errors import BackfillError, LeaseLostError, TransactionUseError
from backfill.logs import fields_of
from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.claim_kinds import LostClaimError
from backfill.storage.commits import TransactionId
from backfill.storage.unprepared import send_unprepared
from backfill.worker.execution.completing import Commands, Completion, completing, looking_back
from backfill.worker.execution.endings import COMMITTED, COMPLETED, GIVEN_BACK, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.outcomes import Outcomes
from backfill.worker.execution.own_end import OwnEnd

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.worker.execution.executor import Executor

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 60.0
"""Seconds that the completing statements, and the commit, may each take."""
AWAY: Final = (psycopg.Error, BackfillError, TimeoutError, OSError)
"""The errors that tell of a database that is away."""


class OwnTransactions:
    """The transactions of one worker's handlers.

    Args:
        executor: holds the jobs.
        client: the handlers' client, whose connections the transactions use.
        worker_id: the worker's id.
        outcomes: makes the endings that keep results.
    """

    def __init__(self, executor: Executor, client: BackfillClient, worker_id: str, outcomes: Outcomes) -> None:
        self.blocks = Blocks(client)
        self.loop = asyncio.get_running_loop()
        self._executor = executor
        self.worker_id = worker_id
        self._outcomes = outcomes
        executor.progress.quiet = _is_quiet

    def enter(self, running: HeldJob, *, quiet: bool) -> OwnEnd:
        """Take note that a handler opens a transaction.

        Args:
            running: its attempt.
            quiet: whether the transaction sees the database as it was at its begin, so that nobody may write the job's
                row meanwhile.

        Raises:
            TransactionUseError: the attempt has one open, has completed its job, or has ended.
        """
        own = running.own
        if own is not None and own.is_open:
            raise TransactionUseError(
                "ctx.transaction() is open already: the job is completed once, at the end of that block; for a part "
                "that can be undone alone, use `async with tx.connection.transaction()`, which makes a savepoint"
            )
        if running.ending is not None or (own is not None and own.ending is not None):
            raise TransactionUseError(
                "ctx.transaction(): the attempt has ended, or its job is completed or lost already; write what belongs "
                "together in one block"
            )
        if own is None:
            own = running.own = OwnEnd()
        own.is_open, own.quiet = True, quiet
        return own

    async def wait_for_writes(self) -> None:
        """Wait until no renewal of locks and no writing of progress is under way: both may write the job's row."""
        async with self._executor.held.renewal, self._executor.progress.writing:
            pass

    def encoded(self, running: HeldJob, result: Any) -> Ending:
        """The ending that keeps a result, or the plain one where the task keeps none."""
        if running.keep is None:
            return COMPLETED
        return self._outcomes.kept(running.job, result, self._executor.interrupted)

    def completing(
        self, running: HeldJob, ending: Ending, begun: TransactionId | None = None
    ) -> Generator[Commands, list[PGresult], Completion]:
        """The steps that complete a job; `begun` is the transaction of the handler's own session, where it has one."""
        paused = self._executor.paused_queues
        return completing(
            running, ending, schema=self.blocks.schema, worker=self.worker_id,
            paused=paused.unlocked_by([running]) if paused else (),
            progressed=[running.job.id] if self._executor.progress.knows(running) else (),
            batches=self._executor.batches, begun=begun,
        )  # fmt: skip

    def committed(self, running: HeldJob) -> None:
        """Take note that a transaction is committed. On the event loop `followed` has to be called after this."""
        assert running.own is not None  # noqa: S101 - it was entered
        running.own.ending = COMMITTED
        running.keep = None  # its end is kept already

    def followed(self, running: HeldJob, completion: Completion) -> None:
        """Let go of the job's share of a limit, and of queues that are not paused any more."""
        if running.share is not None:
            running.share.portion.close(running.share)
        if completion.settlement.resumed:
            self._executor.paused_queues.are_over(completion.settlement.resumed)

    async def look_back(self, running: HeldJob, completion: Completion) -> bool:
        """Find out whether a commit took effect whose answer was lost, however long the database is away.

        Until that is known the attempt counts as one that is given back. Where the worker ends meanwhile, that is what
        is written: it waits for the row, and finds none where the commit took effect.

        Returns:
            Whether the job was completed.

        Raises:
            LeaseLostError: the job is not this attempt's any more, and nobody knows by whom it was completed.
        """
        own = running.own
        assert own is not None  # noqa: S101 - it was entered
        own.ending = GIVEN_BACK
        backoff, outage, never = Backoff(), Backoff(), asyncio.Event()
        while True:
            try:
                answer = await self._looked_back(running, completion)
            except LeaseLostError as error:
                logger.warning("%s", said(error), extra=fields_of(running.job))
                raise
            except AWAY as error:
                logger.log(
                    outage.level(), "job %d (%s): the answer to the commit of its own transaction was lost, and the "
                    "database does not answer: %s", running.job.id, running.job.task_identifier, said(error),
                    extra=fields_of(running.job),
                )  # fmt: skip
                answer = None
            if answer is not None:
                own.ending = COMMITTED if answer else None
                return answer
            await backoff.wait(never)

    async def _looked_back(self, running: HeldJob, completion: Completion) -> bool | None:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await self.blocks.beside()
            try:
                steps = looking_back(running, completion.transaction, schema=self.blocks.schema, worker=self.worker_id)
                answer: bool | None = await driven(
                    steps, lambda asked: send_unprepared(connection, asked, timeout=ANSWER_SECONDS)
                )
            finally:
                await connection.close()
        return answer


async def have_row(running: HeldJob) -> None:
    """Wait until an attempt's claim is written into its job's row, where the attempt's transaction needs it at its end.

    A window that holds the job ends early for that.

    Raises:
        LeaseLostError: the window broke, and others may run the job. Where the handler's own task waits, that one is
            cancelled instead.
    """
    if running.claim.in_row:
        return
    try:
        await running.claim.enter_row()
    except LostClaimError as error:
        if running.own is not None:
            running.own.ending = GIVEN_BACK
        raise LeaseLostError(
            f"job {running.job.id} ({running.job.task_identifier}): attempt {running.job.attempts} is not this "
            "worker's any more, so ctx.transaction() did not begin"
        ) from error


def _is_quiet(running: HeldJob) -> bool:
    """Whether nobody else may write the row of an attempt's job now."""
    return running.own is not None and (running.own.quiet or running.own.leaves_lock_alone)


async def driven(steps: Generator[Commands, list[PGresult], Any], send: Callable[[Commands], Any]) -> Any:
    """Carry out steps on the event loop, and return what they return."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(await send(asked))
    except StopIteration as end:
        return end.value


def driven_here(steps: Generator[Commands, list[PGresult], Any], send: Callable[[Commands], list[PGresult]]) -> Any:
    """Carry out steps in this thread, and return what they return."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send(send(asked))
    except StopIteration as end:
        return end.value
