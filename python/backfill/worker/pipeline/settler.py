"""The settler: gathers the ends of attempts and says what is to be written, until the database has answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg

from backfill.logs import fields_of
from backfill.said import named, said
from backfill.storage.attempts import Attempt
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.worker.execution.endings import COMPLETE, COMPLETED
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.settled import SettledListener, tell
from backfill.worker.pipeline.hot import PASSING, QUERY_TIMEOUT
from backfill.worker.pipeline.weaker import Form, weaker_forms

logger = logging.getLogger(__name__)

LARGEST_BATCH: Final = 500
MOST_RESULTS: Final = 2**24
"""Bytes of kept results in a batch."""
BLOCKED_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 15.0
"""How long an end waits that the database refuses in every form: until somebody has mended what refuses it."""
_HELD_SECONDS: Final = 0.25
"""How long a turn may wait for rows that others hold, all together: it has other work."""


class Settler:
    """What has ended and is not written yet.

    Args:
        executor: whose jobs they are.
        schema: the queue's schema.
        worker: the worker's id.
        settled: called after each batch.
        listeners: told of each batch that is written.
        look_soon: called where the locks in the database may differ from what is known.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        schema: str,
        worker: str,
        settled: Callable[[], None],
        listeners: Sequence[SettledListener],
        look_soon: Callable[[], None],
    ) -> None:
        self._executor = executor
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
        """Take in an attempt that has ended; how many wait to be written now.

        A large payload is let go of: its end is written without it, and others need the memory meanwhile.
        """
        if running.lane.heavy:
            running.job = running.job.without_payload()
        self._pending.append(running)
        self._keeping = self._keeping or running.keep is not None
        return len(self._pending)

    @property
    def pending(self) -> int:
        """How many ends wait to be written."""
        return len(self._pending)

    @property
    def idle(self) -> bool:
        """Whether all is written that the database takes."""
        return not self._pending and not self._under_way and len(self._blocked) == len(self._refused)

    @property
    def refused(self) -> int:
        """How many ends the database refuses: their jobs stay locked by this worker, so that nobody runs them again."""
        return len(self._refused)

    def take(self) -> list[HeldJob]:
        """The next batch, which its taker settles or puts back."""
        batch = self._pending[:LARGEST_BATCH]
        if self._keeping:
            batch = _light(batch)
        del self._pending[: len(batch)]
        self._under_way += len(batch)
        return batch

    def put_back(self, batch: list[HeldJob], *, in_doubt: bool) -> None:
        """A batch was not written, or nobody knows whether it was."""
        self._under_way -= len(batch)
        self._pending[:0] = batch
        self._doubtful = self._doubtful or (in_doubt and bool(batch))

    def settlement(self, batch: Sequence[HeldJob]) -> Settlement:
        """A batch as it is written."""
        settlement = Settlement()
        plain = [running for running in batch if running.ending is COMPLETED]
        if plain:
            settlement.add_all(COMPLETE, plain)
        if len(plain) < len(batch):
            for running in batch:
                if (ending := running.ending) is not COMPLETED:
                    assert ending is not None  # noqa: S101 - what is written has ended
                    settlement.add(*ending.end(running, running.keep))
        return settlement

    def release(self, batch: Sequence[HeldJob], missing: set[Attempt]) -> None:
        """A batch is written: let go of its jobs."""
        self._under_way -= len(batch)
        # After a lost answer, an end that is missing was written before.
        tell(self._listeners, batch, () if self._doubtful else missing)
        self._executor.held.release(batch)
        if self._refused:
            self._refused.difference_update(running.job.id for running in batch)
        for running in [running for running in batch if running in missing] if missing else ():
            if self._doubtful:
                # Written before its answer was lost; given back, it may have been claimed in the same breath.
                self._look_soon()
                continue
            logger.warning(
                "job %d (%s): attempt %d was not this worker's any more when it ended",
                running.job.id, running.job.task_identifier, running.job.attempts, extra=fields_of(running.job),
            )  # fmt: skip
        if not self._pending:
            self._doubtful = False
        self._settled()

    def blocked_in(self) -> float | None:
        """Seconds until ends that could not be written are tried again; None where there are none."""
        return self._blocked_until - time.monotonic() if self._blocked else None

    async def write_blocked(self, wire: Wire) -> None:
        """Try those rows again."""
        batch, self._blocked = self._blocked, []
        self._under_way += len(batch)
        await self.write_one_by_one(wire, batch)

    async def write_one_by_one(self, wire: Wire, batch: list[HeldJob]) -> None:
        """Write a batch that was refused row by row: one that the database refuses must not keep the others.

        Where many are held by somebody, those that were not tried come first the next time. What is refused in every form
        is held on to and tried again: let go of, it would be run again and again.
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
        """Write one end; the attempt if it was not this worker's any more, or None: it cannot be written now.

        Either somebody's transaction holds its row, or the database refuses it in every form. What is refused as it is gets
        written with less; what it decides about its job stays the same.
        """
        known = running.job.id in self._refused
        self._refused.discard(running.job.id)
        assert running.ending is not None  # noqa: S101 - what is written has ended
        whole = Form(running.ending, running.keep)
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
                running.job.id, running.job.task_identifier, REFUSED_SECONDS, said(answer), extra=fields_of(running.job),
            )  # fmt: skip
        return None

    async def _write_less(
        self, wire: Wire, running: HeldJob, whole: Form, refused: psycopg.Error
    ) -> set[Attempt] | psycopg.Error:
        """Write one end that was refused with as little left out as may be; the last refusal, where nothing is taken."""
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
        """Write one end in one form; what the database refused it with, where it did."""
        running.ending, running.keep = form.ending, form.keep
        settlement = self.settlement([running])
        settlement.forgets = form.forgets
        try:
            return await self._settle(wire, settlement)
        except psycopg.Error as error:
            if wire.connection.closed:
                raise
            return error

    async def _settle(self, wire: Wire, settlement: Settlement) -> set[Attempt]:
        return await settle(
            wire, settlement, schema=self._schema, worker=self._worker, timeout=QUERY_TIMEOUT, patient=False
        )


def _light(batch: list[HeldJob]) -> list[HeldJob]:
    """Of a batch as many as have results that can be written at once, one at least."""
    size = 0
    for place, running in enumerate(batch):
        if running.ending is not None and (written := running.ending.size):
            size += written
            if size > MOST_RESULTS and place:
                return batch[:place]
    return batch


def _passes(error: psycopg.Error) -> bool:
    """Whether an end will be taken when it is tried again: somebody holds its row, or its day has just got a partition."""
    if isinstance(error, psycopg.errors.CheckViolation):
        # A constraint of somebody's has a name, and refuses the end however often it is tried.
        return (error.diag.table_name or "").startswith("backfill_ends") and not error.diag.constraint_name
    return isinstance(error, PASSING)
