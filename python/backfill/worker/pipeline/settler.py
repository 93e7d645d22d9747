"""The settler: gathers the ends of attempts, and keeps each until the database has answered that it is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.logs import fields_of
from backfill.said import named, said
from backfill.storage.attempts import Attempt
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.worker.execution.endings import COMMITTED, COMPLETE, COMPLETED
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.progress import ProgressBook
from backfill.worker.execution.settled import SettledListener, tell
from backfill.worker.limits.sources import Sources
from backfill.worker.pipeline.hot import PASSING, QUERY_TIMEOUT
from backfill.worker.pipeline.weaker import Form, weaker_forms

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

LARGEST_BATCH: Final = 500
MOST_RESULTS: Final = 2**24
"""The most bytes of kept results and of checkpoints in a batch."""
BLOCKED_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 15.0
"""Seconds between two tries of an end that the database refuses in every form; somebody must remove the cause first."""
_HELD_SECONDS: Final = 0.25
"""How long one turn may wait for rows that others hold, all together, since it has other work too."""


class Settler:
    """Holds the attempts that have ended and whose ends are not written yet.

    Args:
        executor: the executor that holds the jobs.
        limits: the sources of limited tasks, which know which shares move with an end; None where there are none.
        schema: the queue's schema.
        worker: the worker's id.
        settled: called after each batch that is written.
        listeners: told of each batch that is written.
        look_soon: called where the locks in the database may differ from what this worker knows.
    """

    def __init__(
        self,
        executor: Executor,
        limits: Sources | None = None,
        *,
        schema: str,
        worker: str,
        settled: Callable[[], None],
        listeners: Sequence[SettledListener],
        look_soon: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._progress = executor.progress
        self._limits = limits
        self._schema = schema
        self._worker = worker
        self._settled = settled
        self._listeners = tuple(listeners)
        self._look_soon = look_soon
        self._pending: list[HeldJob] = []
        self._blocked: list[HeldJob] = []
        self._blocked_until = 0.0
        self._refused: set[int] = set()
        self._under_way = 0
        self._doubtful = False
        self._keeping = False

    def add(self, running: HeldJob) -> int:
        """Take in an attempt that has ended; return how many wait to be written now.

        In a lane with large payloads the payload is dropped: the end is written without it, and other jobs need the
        memory. An end that the handler's own transaction has written is let go of at once.
        """
        if running.ending is COMMITTED:
            self.written([running])
            return len(self._pending)
        if running.lane.heavy:
            running.job = running.job.without_payload()
        self._pending.append(running)
        self._keeping = self._keeping or running.keep is not None
        return len(self._pending)

    def listen(self, listener: SettledListener) -> None:
        """Have one more listener told of each batch that is written."""
        self._listeners = (*self._listeners, listener)

    def written(self, batch: Sequence[HeldJob], missing: Collection[HeldJob] = ()) -> None:
        """Let go of attempts whose ends somebody else has written; those that are `missing` count for nothing."""
        tell(self._listeners, batch, missing)
        self._let_go(batch)
        self._settled()

    def release_unwritten(self, batch: Sequence[HeldJob]) -> None:
        """Let go of jobs that wait again as before, of which nothing has to be written, and tell nobody of them."""
        self._let_go(batch)
        self._settled()

    @property
    def pending(self) -> int:
        """How many ends wait to be written."""
        return len(self._pending)

    @property
    def idle(self) -> bool:
        """Whether all ends are written except those that the database refuses."""
        return not self._pending and not self._under_way and len(self._blocked) == len(self._refused)

    @property
    def refused(self) -> int:
        """How many ends the database refuses; their jobs stay locked by this worker, so that nobody runs them again."""
        return len(self._refused)

    def take(self) -> list[HeldJob]:
        """Take the next batch, which the caller settles or puts back."""
        batch = self._pending[:LARGEST_BATCH]
        if self._keeping or self._progress.in_use:
            batch = _light(batch, self._progress)
        del self._pending[: len(batch)]
        self._under_way += len(batch)
        return batch

    def put_back(self, batch: list[HeldJob], *, in_doubt: bool) -> None:
        """Put back a batch that was not written; `in_doubt` says that nobody knows whether it was."""
        self._under_way -= len(batch)
        self._pending[:0] = batch
        self._doubtful = self._doubtful or (in_doubt and bool(batch))

    def settlement(self, batch: Sequence[HeldJob]) -> Settlement:
        """The statements that write a batch, with their parameters."""
        settlement = Settlement()
        settlement.batches = self._executor.batches
        plain = [running for running in batch if running.ending is COMPLETED]
        if plain:
            settlement.add_all(COMPLETE, plain)
        if len(plain) < len(batch):
            for running in batch:
                if (ending := running.ending) is not COMPLETED:
                    assert ending is not None  # noqa: S101 - what is written has ended
                    settlement.add(*ending.end(running, running.keep))
        if self._executor.paused_queues:
            settlement.paused = self._executor.paused_queues.unlocked_by(batch)
        if self._limits is not None and self._limits.have_shares:
            settlement.passes = self._limits.passes(batch)
        if self._progress.in_use:
            settlement.progress, settlement.progressed = self._progress.left(batch), self._progress.over(batch)
        return settlement

    def answered(self, settlement: Settlement, results: Sequence[PGresult]) -> set[Attempt]:
        """Take in the results of a settlement's statements; return the attempts that this worker had lost."""
        missing = settlement.missing(results)
        self._note(settlement)
        return missing

    def release(self, batch: Sequence[HeldJob], missing: set[Attempt]) -> None:
        """Let go of the jobs of a batch that is written."""
        self._under_way -= len(batch)
        # After a lost answer, a missing end counts as written: it was written before the answer was lost.
        tell(self._listeners, batch, () if self._doubtful else missing)
        self._let_go(batch)
        if self._refused:
            self._refused.difference_update(running.job.id for running in batch)
        for running in [running for running in batch if running in missing] if missing else ():
            if self._doubtful:
                # It was written before the answer was lost. A job that was given back may have been claimed by the same
                # round trip.
                self._look_soon()
                continue
            logger.warning(
                "job %d (%s): attempt %d was not this worker's any more when it ended",
                running.job.id, running.job.task_identifier, running.job.attempts, extra=fields_of(running.job),
            )  # fmt: skip
        if not self._pending:
            self._doubtful = False
        self._settled()

    def _let_go(self, batch: Sequence[HeldJob]) -> None:
        self._executor.held.release(batch)
        if self._limits is not None and self._limits.have_shares:
            self._limits.settled(batch)

    def blocked_in(self) -> float | None:
        """Seconds until ends that could not be written are tried again; None where there are none."""
        return self._blocked_until - time.monotonic() if self._blocked else None

    async def write_blocked(self, wire: Wire) -> None:
        """Try to write again the ends that could not be written."""
        batch, self._blocked = self._blocked, []
        self._under_way += len(batch)
        await self.write_one_by_one(wire, batch)

    async def write_one_by_one(self, wire: Wire, batch: list[HeldJob]) -> None:
        """Write a batch that was refused row by row, so that one refused end does not hold up the others.

        Where somebody holds many of the rows, those that were not tried come first the next time. An end that is
        refused in every form is kept and tried again: if its job were let go of, it would be run again and again.
        """
        left, held = list(batch), list[HeldJob]()
        enough = time.monotonic() + _HELD_SECONDS
        try:
            while left and not (held and time.monotonic() > enough):
                missing = await self._write_one(wire, left[0])
                ended = left.pop(0)
                if missing is None:
                    held.append(ended)
                else:
                    self.release([ended], missing)
        except BaseException:
            self.put_back([*left, *held], in_doubt=True)
            raise
        if held:
            self._under_way -= len(left) + len(held)
            self._blocked += [*left, *held]
            wait = REFUSED_SECONDS if len(self._blocked) == len(self._refused) else BLOCKED_SECONDS
            self._blocked_until = time.monotonic() + wait

    async def _write_one(self, wire: Wire, running: HeldJob) -> set[Attempt] | None:
        """Write one end.

        Where the database refuses the whole end, it is written with less; what it decides about its job stays the same.

        Returns:
            The attempt, if it was not this worker's any more, else an empty set; None where the end cannot be written
            now, since somebody's transaction holds its row or the database refuses it in every form.
        """
        known = running.job.id in self._refused
        self._refused.discard(running.job.id)
        assert running.ending is not None  # noqa: S101 - what is written has ended
        whole = Form(running.ending, running.keep, progress=self._progress.knows(running))
        answer: set[Attempt] | psycopg.Error | None = None
        try:
            answer = await self._try(wire, running, whole)
            if isinstance(answer, psycopg.Error) and not _passes(answer):
                answer = await self._write_less(wire, running, whole, answer)
        finally:
            if not isinstance(answer, set):
                running.ending, running.keep = whole.ending, whole.keep
        if not isinstance(answer, psycopg.Error):
            return answer
        if not _passes(answer):
            self._refused.add(running.job.id)
            logger.log(
                logging.DEBUG if known else logging.ERROR,
                "job %d (%s) cannot be settled and stays locked; its end is tried again every %g seconds: %s",
                running.job.id, running.job.task_identifier, REFUSED_SECONDS, said(answer),
                extra=fields_of(running.job),
            )  # fmt: skip
        return None

    async def _write_less(
        self, wire: Wire, running: HeldJob, whole: Form, refused: psycopg.Error
    ) -> set[Attempt] | psycopg.Error:
        """Write a refused end with as little left out as possible; return the last refusal, where no form is taken."""
        answer: set[Attempt] | psycopg.Error = refused
        for form in weaker_forms(whole, named(refused)):
            answer = await self._try(wire, running, form)
            if isinstance(answer, set):
                logger.error(
                    "job %d (%s): its end is refused by the database and written without %s: %s",
                    running.job.id, running.job.task_identifier, form.lacks, said(refused),
                    extra=fields_of(running.job),
                )  # fmt: skip
                break
            if _passes(answer):
                break
        return answer

    async def _try(self, wire: Wire, running: HeldJob, form: Form) -> set[Attempt] | psycopg.Error:
        """Write one end in one form; return the error where the database refused it."""
        running.ending, running.keep = form.ending, form.keep
        settlement = self.settlement([running])
        settlement.forgets = form.forgets
        if not form.progress:
            settlement.progress, settlement.progressed = (), ()
        try:
            return await self._settle(wire, settlement)
        except psycopg.Error as error:
            if wire.connection.closed:
                raise
            return error

    async def _settle(self, wire: Wire, settlement: Settlement) -> set[Attempt]:
        missing = await settle(
            wire, settlement, schema=self._schema, worker=self._worker, timeout=QUERY_TIMEOUT, patient=False
        )
        self._note(settlement)
        return missing

    def _note(self, settlement: Settlement) -> None:
        if settlement.passes and self._limits is not None:
            self._limits.passed(settlement.passes, settlement.passed)
        if settlement.resumed:
            self._executor.paused_queues.are_over(settlement.resumed)


def _light(batch: list[HeldJob], progress: ProgressBook) -> list[HeldJob]:
    """The first attempts of a batch, at least one, whose results and checkpoints can be written together."""
    size = 0
    for place, running in enumerate(batch):
        if running.ending is not None and (written := running.ending.size + progress.size(running)):
            size += written
            if size > MOST_RESULTS and place:
                return batch[:place]
    return batch


def _passes(error: psycopg.Error) -> bool:
    """Whether a refused end will be taken later: somebody holds its row, or its day has just got a partition."""
    if isinstance(error, psycopg.errors.CheckViolation):
        # A partition's own constraint has no name. One that somebody has added has one, and refuses the end each time.
        return (error.diag.table_name or "").startswith("backfill_ends") and not error.diag.constraint_name
    return isinstance(error, PASSING)
