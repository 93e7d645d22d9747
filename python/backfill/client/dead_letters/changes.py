"""Verbs that requeue, delete and add dead letters, and that move jobs there which others have failed for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg

from backfill.checks import check_duration
from backfill.client.asking import ask
from backfill.client.dead_letters.processor import (
    DEFAULT_INTERVAL,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    DlqProcessor,
)
from backfill.client.dead_letters.reading import DeadLetterReading
from backfill.client.execute import repeated, with_key_lock
from backfill.client.metering import count_deleted, count_moved, count_requeued, metered_dead_letter
from backfill.client.prepare import Parameters
from backfill.client.verbs import requeue as verbs
from backfill.client.verbs.dead_letters import BATCH, delete_dlq_by_job_key, delete_dlq_jobs, entry_id, find_dlq_jobs
from backfill.client.verbs.pages import START, Place
from backfill.client.verbs.requeue import KEEP
from backfill.dead_letters import DlqFilter, DlqJob
from backfill.errors import DlqRequeueError, InvalidJobError
from backfill.records import Job
from backfill.said import said
from backfill.storage.types import Lent


class DeadLetterVerbs(DeadLetterReading):
    """The verbs that change dead letters: jobs that will not be tried again."""

    async def requeue_dlq_job(
        self,
        id: int,
        *,
        notes: str | None = None,
        payload: Any = KEEP,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        connection: Lent | None = None,
    ) -> Job:
        """Add an entry's job again, with all its attempts, and update the entry in the same transaction.

        The entry stays until the new job, or a later job with its key, has completed; if the job fails for good again,
        it returns to the same entry. A waiting job with the same key is replaced, as `enqueue` does. If a job that was
        requeued from the entry earlier is still running, or still exists and has no key or a list as its payload, no
        job is added and that job is returned unchanged. A deadline that the job had is dropped.

        Args:
            id: the entry's id.
            notes: a text that is added to the entry's notes, 1 to 10,000 characters.
            payload: another payload; the entry's own payload if not given.
            priority: -32,768 to 32,767; the entry's own priority if not given.
            run_at: the earliest time at which the job runs; aware. If neither `run_at` nor `delay` is given, it is now.
            delay: the same as a span from now, by the database's clock; instead of `run_at`.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The job as it was added.

        Raises:
            DlqJobNotFoundError: there is no such entry.
            InvalidJobError: a value is out of range.
            InvalidPayloadError: the payload cannot be written as JSON.
            psycopg.errors.SerializationFailure: only with `connection=`: the entry was renewed, deleted or requeued
                meanwhile, and the caller must repeat the transaction.
        """
        number, changed = entry_id(id), verbs.edits(notes, payload, priority, run_at, delay)

        async def call() -> Job:
            return await self._run(verbs.requeue_dlq_job(number, changed), connection)

        return await (repeated(call) if connection is None else call())

    async def requeue_dlq_jobs(
        self,
        jobs: Iterable[int] | DlqFilter,
        *,
        notes: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> dict[int, int]:
        """Add the jobs of many entries again, as `requeue_dlq_job` does, 500 in each transaction.

        If the database refuses an entry, its transaction is undone, and the entries in it are then requeued one by one.
        An entry is skipped if a job that was requeued from it earlier is still running, or if that job still waits and
        has no key or a list as its payload.

        Args:
            jobs: the entries' ids, or a filter; ids that do not exist are skipped.
            notes: a text that is added to each entry's notes.
            priority: the priority of all jobs; each entry's own if not given.
            run_at: the earliest time at which the jobs run; aware.
            delay: the same as a span from now; instead of `run_at`.

        Returns:
            The ids of the added jobs, by the ids of their entries.

        Raises:
            InvalidJobError: a value is out of range.
            DlqRequeueError: some entries were refused and all others were requeued; the error names both.
        """
        edits, added, refused = verbs.edits(notes, KEEP, priority, run_at, delay), dict[int, int](), dict[int, str]()
        async for ids in self._batches(jobs):
            try:
                added.update(await self._requeue(ids, edits))
            except psycopg.Error as error:
                if verbs.concerns_all(error):
                    raise
                for entry in ids:
                    await self._requeue_alone(entry, edits, added, refused)
        if refused:
            raise DlqRequeueError(added, refused)
        return added

    async def _requeue(self, ids: list[int], edits: Parameters) -> dict[int, int]:
        requeue = verbs.requeue_dlq_jobs(ids, edits)
        async with self._own_connection() as chosen:
            call = partial(ask, chosen, self._schema, requeue)
            done = await (with_key_lock(chosen, self._schema, call, lock="lock_keys") if len(ids) > 1 else call())
        count_requeued((one.task, one.queue) for one in done)
        return {one.entry: one.job_id for one in done}

    async def _requeue_alone(self, id: int, edits: Parameters, added: dict[int, int], refused: dict[int, str]) -> None:
        """Requeue one entry of a transaction that was refused as a whole."""
        try:
            added.update(await repeated(partial(self._requeue, [id], edits)))
        except psycopg.Error as error:
            if verbs.concerns_all(error):
                raise
            refused[id] = said(error)

    async def delete_dlq_job(self, id: int, *, connection: Lent | None = None) -> bool:
        """Delete an entry.

        Args:
            id: the entry's id.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            Whether there was such an entry.

        Raises:
            InvalidJobError: `id` is not an id.
        """
        return count_deleted(await self._run(delete_dlq_jobs([entry_id(id)]), connection)) > 0

    async def delete_dlq_jobs(self, jobs: Iterable[int] | DlqFilter) -> int:
        """Delete many entries, by their ids or a filter, 500 in each transaction, and return how many there were."""
        count = 0
        async for ids in self._batches(jobs):
            count += count_deleted(await self._run(delete_dlq_jobs(ids)))
        return count

    async def delete_dlq_by_job_key(self, job_key: str, *, connection: Lent | None = None) -> int:
        """Delete the entry that has a job key.

        Args:
            job_key: 1 to 512 characters.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            How many entries there were: 1 or 0.

        Raises:
            InvalidJobError: `job_key` is not a key.
        """
        return count_deleted(await self._run(delete_dlq_by_job_key(job_key), connection))

    async def purge_dlq(self, older_than: timedelta) -> int:
        """Delete entries whose last failure is older than this, by this machine's clock; return how many there were."""
        check_duration("older_than", older_than, zero=True)
        return await self.delete_dlq_jobs(DlqFilter(failed_before=datetime.now(UTC) - older_than))

    async def add_to_dlq(
        self, job: Job, reason: str, *, last_error: str | None = None, connection: Lent | None = None
    ) -> DlqJob:
        """Add a job to the dead letters by hand; the job's row in the queue stays there.

        Args:
            job: the job as it was read. If there is an entry with its key, that entry is renewed.
            reason: why the job is a dead letter, 1 to 100,000 characters.
            last_error: the text of an error; the job's own if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The entry.

        Raises:
            InvalidJobError: `job` is not a `Job`, or a text is too short or too long.
        """
        call = self._run(verbs.add_to_dlq(job, reason, last_error=last_error), connection)
        return await metered_dead_letter(call)

    async def process_failed_jobs(self) -> int:
        """Move all jobs that other programs have failed for good, and that nobody holds, to the dead letters.

        Jobs that our own workers fail for good are there already. Workers do this at their start and once a minute.

        Returns:
            How many jobs were moved.
        """
        return count_moved(await self._run_apart(verbs.process_failed_jobs()))

    def start_dlq_processor(self, interval: timedelta = DEFAULT_INTERVAL) -> DlqProcessor:
        """Call `process_failed_jobs` at once and then each interval, as long as a block of code is open.

        Our workers do this by themselves. It is for programs that run none, beside workers of other programs.

        Args:
            interval: how long to wait after a round, from 1 second to 1 day. After a round that failed the wait is 2,
                4, 8, 16 and then 32 times as long, until one succeeds; the first failure of an outage is logged.

        Returns:
            An object that is entered with `async with`. It stops at the end of the block, within a few seconds.

        Raises:
            InvalidJobError: `interval` is not a time from 1 second to 1 day.

        Example:
            >>> async with client.start_dlq_processor(timedelta(minutes=5)):
            ...     await serve()
        """
        if not isinstance(interval, timedelta) or not SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL:
            raise InvalidJobError("interval", interval, "a datetime.timedelta from 1 second to 1 day")
        return DlqProcessor(self.process_failed_jobs, interval)

    async def _batches(self, jobs: Iterable[int] | DlqFilter) -> AsyncIterator[list[int]]:
        """Yield the entries' ids, 500 at a time; those of a filter from the newest on, so that none comes twice."""
        if not isinstance(jobs, DlqFilter):
            if isinstance(jobs, (str, bytes)) or not isinstance(jobs, Iterable):
                raise InvalidJobError("jobs", jobs, "a list of ids, or a DlqFilter")
            yielded = list(dict.fromkeys(entry_id(one) for one in jobs))
        elif jobs.by_text_alone:
            # Find all before any changes: for each entry that goes, an older one would move up among the newest.
            yielded = [entry async for page in self._found(jobs) for entry in page]
        else:
            async for page in self._found(jobs):
                yield page
            return
        for start in range(0, len(yielded), BATCH):
            yield yielded[start : start + BATCH]

    async def _found(self, filter: DlqFilter) -> AsyncIterator[list[int]]:
        """Yield the ids of the entries that match, from the newest on."""
        place: Place | None = START
        while place is not None:
            found = await self._run(find_dlq_jobs(filter, place))
            if found.ids:
                yield found.ids
            place = found.after
