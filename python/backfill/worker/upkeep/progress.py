"""Writes what the handlers of a worker say about their progress: all of it in one statement, once a second at most.

A worker whose handlers say nothing sends nothing. While the database is away, only the latest word of each attempt is
kept. What an attempt says last is written with its end, by the settler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.errors import BackfillError
from backfill.logs import fields_of
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.progress import Entry
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.progress import ProgressBook
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 1.0
"""How long words are gathered before they are written."""
MOST_BYTES: Final = 2**24
"""The most bytes of checkpoints in a statement."""
_WRITE_TIMEOUT: Final = 30.0
_READ_TIMEOUT: Final = 30.0
_LAST_SECONDS: Final = 2.0
"""How many seconds a worker that ends tries to delete what is left; others delete it otherwise."""
_REFUSALS: Final = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException)
"""Errors by which a database refuses values: its encoding lacks a character, or somebody has added a constraint."""
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class ProgressWriter(Service):
    """Writes a worker's book of progress on a connection of its pool.

    Args:
        client: the services' client.
        worker: the worker's id.
        book: what the handlers have said.
    """

    def __init__(self, client: ServicesClient, *, worker: str, book: ProgressBook) -> None:
        super().__init__("progress")
        self._client = client
        self._worker = worker
        self._book = book
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        book.changed, book.fetch, book.want_row = self._told, self._read, self._want_row

    def _told(self) -> None:
        """Wake the service; this is called in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and a handler goes on in its thread
            self._loop.call_soon_threadsafe(self._changed.set)

    def _want_row(self, running: HeldJob) -> None:
        """Have an attempt's claim written into its job's row; this is called in any thread."""
        with contextlib.suppress(RuntimeError):  # see above
            self._loop.call_soon_threadsafe(running.claim.ask_for_row)

    async def _read(self, job: int) -> bytes | None:
        async with asyncio.timeout(_READ_TIMEOUT):
            return await self._client.read_checkpoint(job)

    async def _run(self) -> None:
        await self._until_stopped(self._write_again_and_again())
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._forget()
        except _TROUBLES as error:
            logger.debug("the progress of completed jobs is left to the upkeep: %s", why(error))

    async def _write_again_and_again(self) -> None:
        backoff = Backoff()
        while True:
            await self._changed.wait()
            if await wait_for_event(self._stopping, EVERY_SECONDS):
                return
            self._changed.clear()
            entries = list[Entry]()
            try:
                async with self._book.writing:
                    entries = self._book.take()
                    for some in _portions(entries):
                        await self._write(some)
                await self._forget()
            except _TROUBLES as error:
                logger.log(backoff.level(), "the progress of jobs could not be written, trying again: %s", why(error))
                await backoff.wait(self._stopping)
            else:
                backoff.reset()
            finally:
                self._book.put_back(entries)
            if self._book.pending():
                self._changed.set()

    async def _forget(self) -> None:
        """Delete the progress of jobs that their handlers' own transactions have completed."""
        if gone := self._book.take_gone():
            await self._client.forget_progress(gone)

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Write some entries; those that the database refuses for their values are found and left out."""
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT):
                written = await self._client.write_progress(self._worker, entries)
        except _REFUSALS as error:
            if len(entries) > 1:
                half = len(entries) // 2
                await self._write(entries[:half])
                await self._write(entries[half:])
                return
            job = entries[0].attempt.job
            written = {job.id}  # it is refused each time, until the handler says something else
            logger.warning(
                "job %d (%s): the database refuses its progress: %s",
                job.id, job.task_identifier, why(error), extra=fields_of(job),
            )  # fmt: skip
        self._book.put_back(entries, written)


def _portions(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries in portions whose checkpoints can be written together; nearly always in one."""
    some, size = list[Entry](), 0
    for entry in entries:
        if some and size + entry.size > MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(entry)
        size += entry.size
    if some:
        yield some
