"""Completes a job in its handler's own transaction: what is asked of the database, in which order, and what it means.

Used by the transactions of handlers on the event loop and of those in threads. Here are only the steps, without I/O:
a step is a list of commands, and is sent their results.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from backfill.errors import LeaseLostError, TransactionUseError
from backfill.logs import fields_of
from backfill.storage.arrays import number_array
from backfill.storage.attempts import read_locks
from backfill.storage.commits import Fate, TransactionId, ask_fate, ask_id, read_fate, read_id
from backfill.storage.settlements import Settlement
from backfill.storage.wire import Command
from backfill.worker.execution.endings import Ending
from backfill.worker.execution.held_job import HeldJob

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

Commands: TypeAlias = Sequence[Command]


@dataclass(frozen=True, slots=True)
class Completion:
    """A job that is completed as soon as the transaction is committed.

    Attributes:
        transaction: by what the transaction is known, if the answer to its commit is lost.
        settlement: what was written.
    """

    transaction: TransactionId
    settlement: Settlement


def completing(
    running: HeldJob,
    ending: Ending,
    *,
    schema: str,
    worker: str,
    paused: Sequence[int],
    progressed: Sequence[int],
    batches: Collection[str],
    begun: TransactionId | None = None,
) -> Generator[Commands, list[PGresult], Completion]:
    """Write the end of an attempt, which must be the last that the transaction does.

    The lock may have been renewed while its row was asked for, or the answer to a renewal may have been lost. So where
    nothing is found, the row is read, and the end is written once more if the lock is still this attempt's.

    Args:
        running: the attempt.
        ending: how it ends.
        schema: the queue's schema.
        worker: the worker's id.
        paused: the ids of paused serial queues that this unlocks.
        progressed: the job's id, where it may have a row of progress.
        batches: the names of the tasks whose jobs are batches.
        begun: the transaction that the handler's own session had at the block's begin, with the rights that it has
            there; None for a transaction that the worker began for the block.

    Raises:
        LeaseLostError: the job is not this attempt's any more.
        TransactionUseError: the transaction is not the one that was begun for the block.
    """
    for last in (False, True):
        settlement = Settlement([ending.end(running, running.keep)])
        settlement.paused, settlement.progressed, settlement.batches = paused, progressed, batches
        rights = [Command.of("be_session_role", schema)] if begun is None else []
        results = yield [*rights, *settlement.commands(schema=schema, worker=worker), ask_id(schema)]
        results = results[len(rights) :]
        transaction = read_id(results[-1])
        _refuse_another(transaction, begun)
        if not settlement.missing(results[:-1]):
            return Completion(transaction, settlement)
        known = running.locked_at, running.queue_locked_at
        if last or not _is_held(running, (yield [_ask_lock(running, schema, worker)])[0]):
            break
        if known == (running.locked_at, running.queue_locked_at):
            break
    logger.warning(
        "job %d (%s): attempt %d was not this worker's any more when it ended; its own transaction is rolled back",
        running.job.id, running.job.task_identifier, running.job.attempts, extra=fields_of(running.job),
    )  # fmt: skip
    raise LeaseLostError(
        f"job {running.job.id} ({running.job.task_identifier}): attempt {running.job.attempts} is not this worker's "
        "any more, so what it wrote in ctx.transaction() was rolled back"
    )


def looking_back(
    running: HeldJob, transaction: TransactionId, *, schema: str, worker: str
) -> Generator[Commands, list[PGresult], bool | None]:
    """Find out what became of a commit whose answer was lost.

    The fate of the transaction is read first, and the job's row after that by a statement of its own, so that the row
    is as the transaction has left it.

    Returns:
        Whether the job was completed; None while the transaction is in progress.

    Raises:
        LeaseLostError: the row is gone or another attempt's, and nobody knows by whom the job was completed.
    """
    fates, locks = yield [ask_fate(transaction, schema), _ask_lock(running, schema, worker)]
    fate = read_fate(transaction, fates)
    if fate is Fate.IN_PROGRESS:
        return None
    if _is_this_attempts(running, locks):
        return False  # whatever is said of the transaction: after a crash its id may have been given to another one
    if fate is Fate.COMMITTED:
        return True
    raise LeaseLostError(
        f"job {running.job.id} ({running.job.task_identifier}): the connection was lost at the commit of "
        f"ctx.transaction(), and the job is not this worker's any more (its transaction: {fate}), so attempt "
        f"{running.job.attempts} does not say that it completed it"
    )


def _refuse_another(transaction: TransactionId, begun: TransactionId | None) -> None:
    if begun is None and not transaction.is_blocks_own:
        raise TransactionUseError(
            "ctx.transaction(): the handler has ended the block's transaction by SQL text, such as `commit`, and "
            "has begun another one, so that the job would not be completed with all that the block has written; "
            "the block commits at its end, and savepoints are made by `tx.connection.transaction()`"
        )
    if begun is not None and transaction.number != begun.number:
        raise TransactionUseError(
            "ctx.transaction(): the session's transaction was committed or rolled back within the block, so that the "
            "job would not be completed with all that the block has written; the block commits at its end, and "
            "savepoints are made by `begin_nested()`"
        )


def _ask_lock(running: HeldJob, schema: str, worker: str) -> Command:
    return Command.of("find_held_locks", schema, worker, number_array([running.job.id]))


def _is_held(running: HeldJob, result: PGresult) -> bool:
    """Whether the job is locked by this worker; if it is by this attempt, the lock's times are noted."""
    return running.claim.is_held(running, read_locks(result).get(running.job.id))


def _is_this_attempts(running: HeldJob, result: PGresult) -> bool:
    lock = read_locks(result).get(running.job.id)
    return lock is not None and (lock.locked_at == running.locked_at or lock.attempts == running.job.attempts)
