"""The book of progress: what the handlers of a worker have said about their progress and is not written yet.

A handler says how far it has come as often as it likes, from any thread. Only the latest of it is kept, in memory, and
nothing waits for the database. A service of the worker writes what has changed, once a second at most, and what an
attempt said last is written with the attempt's end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final

import psycopg

from backfill.errors import BackfillError
from backfill.logs import fields_of
from backfill.payloads import decode_plain
from backfill.progress import Step, checked_step, encode_checkpoint
from backfill.records import PROGRESS_FLAG
from backfill.said import why
from backfill.storage.progress import Entry
from backfill.worker.execution.endings import CANCELLED, Answered, Snoozed
from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)

UNREAD_SECONDS: Final = 15.0
"""How long a job is put off whose checkpoint could not be read."""
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class _Noted:
    """What one attempt has said, and what of it is not known to be written.

    Attributes:
        step: what it has said of its progress last; None if it has said nothing.
        checkpoint: the job's last checkpoint, of this attempt or an earlier one; None if there is none.
        stepped: whether `step` is to be written.
        saved: whether `checkpoint` is to be written.
        deleted: whether the settlement that ends the job deletes its row.
        asked: whether the attempt's claim was asked to enter the job's row, since it was not there.
    """

    __slots__ = ("asked", "checkpoint", "deleted", "saved", "step", "stepped")

    def __init__(self, checkpoint: bytes | None = None, *, fresh: bool) -> None:
        self.step: Step | None = None
        self.checkpoint = checkpoint
        self.stepped = self.saved = fresh
        self.deleted = self.asked = False

    def entry(self, running: HeldJob) -> Entry:
        """What is to be written of it."""
        return Entry(running, self.step, self.stepped, self.checkpoint, self.saved)


class ProgressBook:
    """Holds the latest progress and checkpoint of each attempt of one worker.

    `progress`, `checkpoint` and `checkpointed` with their variants are safe from any thread; the other methods are for
    the worker's loop.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        """Called, in any thread, when something is to be written and nothing was before."""
        self.fetch: Callable[[int], Awaitable[bytes | None]]
        """Reads the checkpoint of a job from the database."""
        self.want_row: Callable[[HeldJob], None] = lambda _: None
        """Called, in any thread and once an attempt, where no word can be written since the claim is not in the row."""
        self.quiet: Callable[[HeldJob], bool] = lambda _: False
        """Whether the row of an attempt's job must not be written now, since its handler's transaction reads it."""
        self.writing = asyncio.Lock()
        """Held while what was taken out is written."""
        self._gone: set[int] = set()
        self._noted: dict[HeldJob, _Noted] = {}
        self._changed: set[HeldJob] = set()
        self._lock = threading.Lock()

    @property
    def in_use(self) -> bool:
        """Whether it knows anything of a job that this worker holds."""
        return bool(self._noted)

    def knows(self, running: HeldJob) -> bool:
        """Whether an attempt has said anything, or its job has a checkpoint."""
        return running in self._noted

    def progress(self, running: HeldJob, done: float, total: float | None = None, note: str | None = None) -> None:
        """Note how far an attempt has come. What it said before is replaced, the total and the note too.

        A call for an attempt that has ended is ignored.

        Raises:
            InvalidJobError: one of the values cannot be used; the message names it.
        """
        step = checked_step(done, total, note)
        with self._lock:
            if running.ending is not None:
                return
            noted = self._of(running)
            noted.step, noted.stepped = step, True
            first = self._change(running)
        self._tell(running, noted, first=first)

    def checkpoint(self, running: HeldJob, value: Any) -> None:
        """Note a checkpoint of an attempt. A call for an attempt that has ended is ignored.

        Raises:
            InvalidPayloadError: the value has no form in JSON, or is too large.
        """
        self.checkpoint_encoded(running, encode_checkpoint(value))

    def checkpoint_encoded(self, running: HeldJob, encoded: bytes) -> None:
        """Note a checkpoint that `backfill.progress.encode_checkpoint` has checked and encoded elsewhere."""
        with self._lock:
            if running.ending is not None:
                return
            noted = self._of(running)
            noted.checkpoint, noted.saved = encoded, True
            first = self._change(running)
        self._tell(running, noted, first=first)

    def checkpointed(self, running: HeldJob) -> Any:
        """The value of the job's last checkpoint, of this attempt or of an earlier one; None if there is none."""
        encoded = self.checkpointed_encoded(running)
        return None if encoded is None else decode_plain(encoded)

    def checkpointed_encoded(self, running: HeldJob) -> bytes | None:
        """The same as JSON text, which another process can decode; None if there is none."""
        noted = self._noted.get(running)
        return None if noted is None else noted.checkpoint

    async def read(self, running: HeldJob) -> None:
        """Read the checkpoint of a job before its handler starts, if an earlier attempt has said anything.

        Raises:
            Answered: it could not be read. The job is put off, which costs no attempt: a handler that began without its
                checkpoint would do everything again.
        """
        if PROGRESS_FLAG not in running.job.flags:
            return
        try:
            checkpoint = await self.fetch(running.job.id)
        except _TROUBLES as error:
            job = running.job
            logger.warning(
                "job %d (%s): its checkpoint could not be read, and it is tried again in %g seconds: %s",
                job.id, job.task_identifier, UNREAD_SECONDS, why(error), extra=fields_of(job),
            )  # fmt: skip
            raise Answered(Snoozed(UNREAD_SECONDS, recorded=False)) from None
        with self._lock:
            self._noted[running] = _Noted(checkpoint, fresh=False)

    def take(self) -> list[Entry]:
        """Take out what running attempts have said since it was last taken; attempts that have ended are left out.

        What an attempt has said whose row must not be written now, or has no claim yet, is kept for the next time.
        """
        with self._lock:
            changed = self._changed
            self._changed = {running for running in changed if not running.claim.in_row or self.quiet(running)}
            return [
                self._noted[running].entry(running)
                for running in changed - self._changed
                if running.ending is None and not running.lost and running in self._noted
            ]

    def put_back(self, entries: Iterable[Entry], written: Collection[int] = ()) -> None:
        """Note which of the entries that were taken out are written, by the ids of their jobs; give the others again.

        What an attempt has said meanwhile is not written, although an earlier word of it is.
        """
        with self._lock:
            for entry in entries:
                running = entry.attempt
                assert isinstance(running, HeldJob)  # noqa: S101 - `take` has made the entry
                if (noted := self._noted.get(running)) is None:
                    continue
                if running.job.id in written:
                    noted.stepped = noted.stepped and noted.step is not entry.step
                    noted.saved = noted.saved and noted.checkpoint is not entry.checkpoint
                if noted.stepped or noted.saved:
                    self._changed.add(running)

    def take_gone(self) -> list[int]:
        """Take out the ids of jobs whose rows of progress are to be deleted."""
        with self._lock:
            gone, self._gone = self._gone, set()
        return list(gone)

    def pending(self) -> bool:
        """Whether something is to be written."""
        return bool(self._changed)

    def left(self, batch: Sequence[HeldJob]) -> list[Entry]:
        """What attempts that have ended leave to the next attempts of their jobs and is not known to be written."""
        with self._lock:
            found = [(running, noted) for running in batch if (noted := self._noted.get(running)) is not None]
        return [
            noted.entry(running) for running, noted in found if (noted.stepped or noted.saved) and not _is_over(running)
        ]

    def over(self, batch: Sequence[HeldJob]) -> list[int]:
        """The ids of jobs that end with these attempts and may have rows of progress, which the caller deletes."""
        over = [running for running in batch if running in self._noted and _is_over(running)]
        for running in over:
            self._noted[running].deleted = True
        return [running.job.id for running in over]

    def size(self, running: HeldJob) -> int:
        """How many bytes of a checkpoint an attempt leaves to the next one and are not known to be written."""
        noted = self._noted.get(running)
        return 0 if noted is None else noted.entry(running).size

    def release(self, batch: Collection[HeldJob]) -> None:
        """Forget attempts whose ends are written.

        A job may have been completed by something else than a settlement, such as a transaction of its handler's. The
        row of its progress is then deleted soon. A job whose claim was never in its row has no such row: nothing was
        written of it.
        """
        if not self._noted:
            return
        with self._lock:
            found = [(running, noted) for running in batch if (noted := self._noted.pop(running, None)) is not None]
            gone = {
                running.job.id
                for running, noted in found
                if running.claim.in_row and _is_over(running) and not noted.deleted
            }
            self._gone |= gone
            self._changed.difference_update(batch)
        if gone:
            self.changed()

    def _tell(self, running: HeldJob, noted: _Noted, *, first: bool) -> None:
        """Tell of a word that an attempt has said; `first` says whether nothing was to be written before."""
        if first:
            self.changed()
        if not (noted.asked or running.claim.in_row):
            noted.asked = True
            self.want_row(running)

    def _of(self, running: HeldJob) -> _Noted:
        noted = self._noted.get(running)
        if noted is None:
            noted = self._noted[running] = _Noted(fresh=True)
        return noted

    def _change(self, running: HeldJob) -> bool:
        """Note that something of an attempt is to be written; return whether nothing was to be written before."""
        first = not self._changed
        self._changed.add(running)
        return first


def _is_over(running: HeldJob) -> bool:
    """Whether the job ends with the attempt and leaves no dead letter."""
    return running.ending is not None and (running.ending.ends_job or running.ending is CANCELLED)
