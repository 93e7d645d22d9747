"""Dead letters, changed: requeued, deleted, added by hand; and the move of what others have failed for good."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import psycopg

from backfill.checks import KEY_LIMIT, SMALLINT, check_duration, check_int, check_text
from backfill.client.dead_letters.reading import DeadLetterReading
from backfill.client.dead_letters.rows import entry_id, filter_parameters
from backfill.client.execute import in_transaction, read_jobs, repeated, run, text, with_key_lock
from backfill.client.pages import START, cursor_of, place_of, whole
from backfill.client.prepare import Parameters, due, flags_json
from backfill.dead_letters import DlqFilter, DlqJob
from backfill.errors import DlqJobNotFoundError, DlqRequeueError, InvalidJobError
from backfill.payloads import encode
from backfill.records import Job
from backfill.said import said
from backfill.storage.arrays import number_array
from backfill.storage.connection import Connection

logger = logging.getLogger(__name__)

KEEP: Final[Any] = type("Keep", (), {"__repr__": lambda _: "KEEP"})()
"""A payload that stays as the entry has it."""
TEXT_LIMIT: Final = 100_000
NOTES_LIMIT: Final = 10_000
_BATCH: Final = 500
_TRIES: Final = 10
_PASSING: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""An entry was renewed, deleted or requeued meanwhile, or two calls waited for each other: nothing took effect."""
_ANY: Final = DlqFilter()


class DeadLetterVerbs(DeadLetterReading):
    """The verbs for jobs that will not be tried again."""

    async def requeue_dlq_job(
        self,
        id: int,
        *,
        notes: str | None = None,
        payload: Any = KEEP,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
        connection: Connection | None = None,
    ) -> Job:
        """Add an entry's job again, with all its attempts, in one transaction with the entry's bookkeeping.

        The entry stays until the job, or a later one of its key, has completed; if it fails for good again it comes back into
        the same entry. A waiting job of its key is replaced, as by `enqueue`. A job that was requeued from it before is given
        back as it is while it runs, and, without a key, while it is there at all. A deadline that the job had is dropped.

        Args:
            id: the entry's.
            notes: added to the entry's, 1 to 10,000 characters.
            payload: another payload; the entry's own if not given.
            priority: -32,768 to 32,767; the entry's own if not given.
            run_at: not before this time; aware. Now, if neither it nor `delay` is given.
            delay: not before this long from now, by the database's clock.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The job as it was added.

        Raises:
            DlqJobNotFoundError: there is no such entry.
            InvalidJobError: a value out of range.
            InvalidPayloadError: a payload that is not JSON.
            psycopg.errors.SerializationFailure: on a `connection` of the caller's: the entry was renewed, deleted or requeued
                meanwhile, and that transaction is to be repeated.
        """
        parameters = (number_array([entry_id(id)]), *_edits(notes, payload, priority, run_at, delay))
        call = partial(self._requeue_one, id, parameters, connection)
        return await (repeated(call, _PASSING) if connection is None else call())

    async def _requeue_one(self, id: int, parameters: Parameters, connection: Connection | None) -> Job:
        async with self._connection(connection) as chosen, in_transaction(chosen):
            for _ in range(_TRIES):  # the job that was in the way may end before it is read
                found = await run(chosen, "requeue_dead_letters", self._schema, parameters)
                if found.ntuples:
                    [job] = await read_jobs(chosen, "get_job", self._schema, (text(found, 0, 1),))
                    return job
                entry = await self.get_dlq_job(id, connection=chosen)
                if entry is None:
                    break
                if entry.requeued_job_id is not None:
                    there = await read_jobs(chosen, "get_job", self._schema, (str(entry.requeued_job_id),))
                    if there:
                        return there[0]
        raise DlqJobNotFoundError(id)

    async def requeue_dlq_jobs(
        self,
        jobs: Iterable[int] | DlqFilter,
        *,
        notes: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> dict[int, int]:
        """Add the jobs of many entries again, as `requeue_dlq_job` does, 500 in a transaction.

        An entry that the database refuses costs its transaction: those in it are then requeued one by one. One whose job of
        a requeue before runs is passed over, and one without a key also while that job waits.

        Args:
            jobs: the entries' ids, or a filter; ids that are not there are passed over.
            notes: added to each entry's.
            priority: of all; each entry's own if not given.
            run_at: of all; aware.
            delay: of all.

        Returns:
            The jobs' ids by their entries'.

        Raises:
            InvalidJobError: a value out of range.
            DlqRequeueError: some entries were refused; all others are requeued, and it names both.
        """
        edits, added, refused = _edits(notes, KEEP, priority, run_at, delay), dict[int, int](), dict[int, str]()
        async for ids in self._batches(jobs):
            try:
                added.update(await self._requeue(ids, edits))
            except psycopg.Error as error:
                if _concerns_all(error):
                    raise
                for entry in ids:
                    await self._requeue_alone(entry, edits, added, refused)
        if refused:
            raise DlqRequeueError(added, refused)
        return added

    async def _requeue(self, ids: list[int], edits: Parameters) -> dict[int, int]:
        async with self._connection(None) as chosen:
            call = partial(run, chosen, "requeue_dead_letters", self._schema, (number_array(ids), *edits))
            found = await (with_key_lock(chosen, self._schema, call, lock="lock_keys") if len(ids) > 1 else call())
        return {whole(found, row, 0): whole(found, row, 1) for row in range(found.ntuples)}

    async def _requeue_alone(self, id: int, edits: Parameters, added: dict[int, int], refused: dict[int, str]) -> None:
        """Requeue one entry of those that were refused together."""
        try:
            added.update(await repeated(partial(self._requeue, [id], edits), _PASSING))
        except psycopg.Error as error:
            if _concerns_all(error):
                raise
            refused[id] = said(error)

    async def delete_dlq_job(self, id: int, *, connection: Connection | None = None) -> bool:
        """Delete an entry.

        Args:
            id: the entry's id.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            Whether there was one.

        Raises:
            InvalidJobError: no id.
        """
        async with self._connection(connection) as chosen:
            return (await run(chosen, "delete_dead_letters", self._schema, (number_array([entry_id(id)]),))).ntuples > 0

    async def delete_dlq_jobs(self, jobs: Iterable[int] | DlqFilter) -> int:
        """Delete many entries, by their ids or a filter, 500 in a transaction; how many there were."""
        count = 0
        async for ids in self._batches(jobs):
            async with self._connection(None) as chosen:
                count += (await run(chosen, "delete_dead_letters", self._schema, (number_array(ids),))).ntuples
        return count

    async def delete_dlq_by_job_key(self, job_key: str, *, connection: Connection | None = None) -> int:
        """Delete the entry of a job's key.

        Args:
            job_key: 1 to 512 characters.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            How many entries there were: 1 or 0.

        Raises:
            InvalidJobError: no key.
        """
        check_text("job_key", job_key, KEY_LIMIT)
        async with self._connection(connection) as chosen:
            return (await run(chosen, "delete_dead_letter_by_key", self._schema, (job_key,))).ntuples

    async def purge_dlq(self, older_than: timedelta) -> int:
        """Delete the entries that failed last so long ago, by this machine's clock; how many there were."""
        check_duration("older_than", older_than, zero=True)
        return await self.delete_dlq_jobs(DlqFilter(failed_before=datetime.now(UTC) - older_than))

    async def add_to_dlq(
        self, job: Job, reason: str, *, last_error: str | None = None, connection: Connection | None = None
    ) -> DlqJob:
        """Write a job among the dead letters by hand; its own row is left where it is.

        Args:
            job: as it was read; the entry of its key is renewed, if there is one.
            reason: why, 1 to 100,000 characters.
            last_error: an error; the job's own if not given.
            connection: a psycopg connection to write on, inside its transaction; else one of the client's.

        Returns:
            The entry.

        Raises:
            InvalidJobError: no job, or a text out of range.
        """
        if not isinstance(job, Job):
            raise InvalidJobError("job", job, "a Job, as get_job gives it")
        check_text("reason", reason, TEXT_LIMIT)
        if last_error is not None:
            check_text("last_error", last_error, TEXT_LIMIT)
        parameters = (
            str(job.id), job.task_identifier, job.queue_name, job.payload_bytes.decode(), str(job.priority), job.key,
            str(job.attempts), str(job.max_attempts), flags_json(job.flags), job.created_at.isoformat(), job.run_at.isoformat(),
            last_error or job.last_error, reason,
        )  # fmt: skip
        async with self._connection(connection) as chosen, in_transaction(chosen):
            written = await run(chosen, "add_dead_letter", self._schema, parameters)
            [entry], _ = await self._page(chosen, filter_parameters(_ANY, [whole(written, 0, 0)]), 1)
        return entry

    async def process_failed_jobs(self) -> int:
        """Move to the dead letters what other programs have failed for good and nobody holds, until none is left.

        What a worker of ours fails for good is there already. Workers do this at their start and once a minute.

        Returns:
            How many were moved.
        """
        count, after, wanted = 0, 0, _BATCH
        while True:
            try:
                async with self._connection(None) as chosen:
                    found = await run(chosen, "sweep_dead_letters", self._schema, (str(wanted), str(after)))
            except psycopg.Error as error:
                if _concerns_all(error) and not isinstance(error, _PASSING):
                    raise
                if wanted > 1:
                    wanted = 1  # go past the one that is refused
                    continue
                refused = await self._next_exhausted(after)
                if refused is None:
                    return count
                logger.warning("job %d cannot be moved to the dead letters: %s", refused, said(error))
                after = refused
                continue
            moved = whole(found, 0, 0)
            count += moved
            if moved < wanted:
                return count
            wanted = min(2 * wanted, _BATCH)

    async def _next_exhausted(self, after: int) -> int | None:
        async with self._connection(None) as chosen:
            found = await run(chosen, "next_exhausted_job", self._schema, (str(after),))
        return whole(found, 0, 0) if found.ntuples else None

    async def _batches(self, jobs: Iterable[int] | DlqFilter) -> AsyncIterator[list[int]]:
        """Ids of entries, 500 at a time; those of a filter from the newest on, so that none comes twice."""
        if not isinstance(jobs, DlqFilter):
            if isinstance(jobs, (str, bytes)) or not isinstance(jobs, Iterable):
                raise InvalidJobError("jobs", jobs, "a list of ids, or a DlqFilter")
            yielded = list(dict.fromkeys(entry_id(one) for one in jobs))
        elif jobs.by_text_alone:
            # Found before any is touched: with each that goes, an older one would come among the newest.
            yielded = [entry async for page in self._found(jobs) for entry in page]
        else:
            async for page in self._found(jobs):
                yield page
            return
        for start in range(0, len(yielded), _BATCH):
            yield yielded[start : start + _BATCH]

    async def _found(self, filter: DlqFilter) -> AsyncIterator[list[int]]:
        """The ids of entries that match, from the newest on."""
        parameters, place = filter_parameters(filter), START
        while True:
            async with self._connection(None) as chosen:
                found = await run(chosen, "find_dead_letters", self._schema, (*parameters, *place, str(_BATCH)))
            if found.ntuples:
                yield [whole(found, row, 0) for row in range(found.ntuples)]
            if found.ntuples < _BATCH:
                return
            place = place_of(cursor_of(found, found.ntuples - 1, 1))


def _edits(
    notes: str | None, payload: Any, priority: int | None, run_at: datetime | None, delay: timedelta | None
) -> Parameters:
    if notes is not None:
        check_text("notes", notes, NOTES_LIMIT)
    when = due(run_at, delay)
    check_int("priority", priority, SMALLINT)
    return (
        notes,
        None if payload is KEEP else encode(payload).decode(),
        None if priority is None else str(int(priority)),
        *when,
    )


def _concerns_all(error: psycopg.Error) -> bool:
    """Whether what was refused for many rows would be refused for each of them."""
    if isinstance(error, (*_PASSING, psycopg.errors.ProgramLimitExceeded)):
        return False
    return isinstance(error, (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege, psycopg.InterfaceError))
