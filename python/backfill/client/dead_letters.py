"""Dead letters: list, count, group, requeue, delete, and add by hand; and the move of what others have failed for good."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from backfill.checks import KEY_LIMIT, SMALLINT, check_duration, check_int, check_text
from backfill.client.connect import ClientLife
from backfill.client.execute import in_turn, read_jobs, run, text, together
from backfill.client.prepare import Parameters, due, flags_json, moment
from backfill.dead_letters import DlqFilter, DlqGroup, DlqJob, DlqJobList, DlqStats
from backfill.errors import DlqJobNotFoundError, InvalidJobError
from backfill.payloads import encode
from backfill.records import Job
from backfill.storage.arrays import number_array
from backfill.storage.connection import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

KEEP: Final[Any] = type("Keep", (), {"__repr__": lambda _: "KEEP"})()
"""A payload that stays as the entry has it."""
TEXT_LIMIT: Final = 100_000
NOTES_LIMIT: Final = 10_000
PAGE_LIMIT: Final = 1_000
SEARCHED: Final = 10_000
_BATCH: Final = 500
_BIGINT: Final = range(1, 2**63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ANY: Final = DlqFilter()


class DeadLetterVerbs(ClientLife):
    """The verbs for jobs that will not be tried again."""

    async def list_dlq_jobs(
        self,
        filter: DlqFilter = _ANY,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> DlqJobList:
        """A page of the dead letters that match, newest first.

        Args:
            filter: which; all if not given.
            limit: entries at most, 1 to 1,000.
            cursor: where the page begins: the one before's `cursor`.
            connection: a psycopg connection to read on; else one of the client's.

        Returns:
            The page, and how many match at all.

        Raises:
            InvalidJobError: a value out of range, or a cursor that is none.
        """
        check_int("limit", limit, range(1, PAGE_LIMIT + 1))
        parameters, place = _filter_parameters(filter), _place(cursor)
        async with self._connection(connection) as chosen:
            jobs, after = await self._page(chosen, parameters, limit, place)
            total = await run(chosen, "count_dead_letters", self._schema, parameters)
        return DlqJobList(jobs, _int(total, 0, 0), after, filter.by_text_alone)

    async def get_dlq_job(self, id: int, *, connection: Connection | None = None) -> DlqJob | None:
        """One entry by its id, or None: there is none.

        Raises:
            InvalidJobError: no id.
        """
        parameters = _filter_parameters(_ANY, [_id(id)])
        async with self._connection(connection) as chosen:
            jobs, _ = await self._page(chosen, parameters, 1)
        return jobs[0] if jobs else None

    async def dlq_stats(self, *, connection: Connection | None = None) -> DlqStats:
        """All dead letters in figures."""
        async with self._connection(connection) as chosen:
            found = await run(chosen, "dead_letter_stats", self._schema)
        tasks = [(name, number) for name, number in orjson.loads(text(found, 0, 7) or "[]")]
        jobs, names, queues, requeued = (_int(found, 0, column) for column in range(4))
        failures = float(text(found, 0, 4) or 0)
        return DlqStats(jobs, names, queues, requeued, failures, _time(found, 0, 5), _time(found, 0, 6), tasks)

    async def dlq_groups(
        self, task_identifier: str | None = None, *, limit: int = 50, connection: Connection | None = None
    ) -> list[DlqGroup]:
        """The dead letters grouped by how they failed, the largest groups first.

        Args:
            task_identifier: those of one task; of all if not given.
            limit: groups at most, 1 to 1,000.
            connection: a psycopg connection to read on; else one of the client's.

        Raises:
            InvalidJobError: a value out of range.
        """
        check_int("limit", limit, range(1, PAGE_LIMIT + 1))
        task = DlqFilter(task_identifier=task_identifier).task_identifier
        async with self._connection(connection) as chosen:
            found = await run(chosen, "dead_letter_groups", self._schema, (task, str(limit)))
        return [
            DlqGroup(
                text(found, row, 0), text(found, row, 1), _int(found, row, 2), _int(found, row, 3), _time(found, row, 4),
                _time(found, row, 5), _int(found, row, 6), orjson.loads(text(found, row, 7) or "[]"),
            )
            for row in range(found.ntuples)
        ]  # fmt: skip

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
        the same entry. A waiting job of its key is replaced, as by `enqueue`; without a key, a job that was requeued from it
        and is there still is given back as it is. A deadline that the job had is dropped.

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
        """
        edits = _edits(notes, payload, priority, run_at, delay)
        async with self._connection(connection) as chosen, together(chosen):
            found = await run(chosen, "requeue_dead_letters", self._schema, (number_array([_id(id)]), *edits))
            if found.ntuples:
                [job] = await read_jobs(chosen, "get_job", self._schema, (text(found, 0, 1),))
                return job
            entry = await self.get_dlq_job(id, connection=chosen)
            there = None if entry is None else entry.requeued_job_id
            waiting = [] if there is None else await read_jobs(chosen, "get_job", self._schema, (str(there),))
        if not waiting:
            raise DlqJobNotFoundError(id)
        return waiting[0]

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
        """
        edits, added = _edits(notes, KEEP, priority, run_at, delay), dict[int, int]()
        async for ids in self._batches(jobs):
            async with self._connection(None) as chosen:
                call = partial(run, chosen, "requeue_dead_letters", self._schema, (number_array(ids), *edits))
                found = await in_turn(chosen, self._schema, call, lock="lock_keys")
            added.update((_int(found, row, 0), _int(found, row, 1)) for row in range(found.ntuples))
        return added

    async def delete_dlq_job(self, id: int, *, connection: Connection | None = None) -> bool:
        """Delete an entry; whether there was one."""
        async with self._connection(connection) as chosen:
            return (await run(chosen, "delete_dead_letters", self._schema, (number_array([_id(id)]),))).ntuples > 0

    async def delete_dlq_jobs(self, jobs: Iterable[int] | DlqFilter) -> int:
        """Delete many entries, by their ids or a filter, 500 in a transaction; how many there were."""
        count = 0
        async for ids in self._batches(jobs):
            async with self._connection(None) as chosen:
                count += (await run(chosen, "delete_dead_letters", self._schema, (number_array(ids),))).ntuples
        return count

    async def delete_dlq_by_job_key(self, job_key: str, *, connection: Connection | None = None) -> int:
        """Delete the entry of a key; how many there were: 1 or 0."""
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
        async with self._connection(connection) as chosen, together(chosen):
            written = await run(chosen, "add_dead_letter", self._schema, parameters)
            [entry], _ = await self._page(chosen, _filter_parameters(_ANY, [_int(written, 0, 0)]), 1)
        return entry

    async def process_failed_jobs(self) -> int:
        """Move to the dead letters what other programs have failed for good and nobody holds, until none is left.

        What a worker of ours fails for good is there already. Workers do this at their start and once a minute.

        Returns:
            How many were moved.
        """
        count = 0
        while True:
            async with self._connection(None) as chosen:
                moved = _int(await run(chosen, "sweep_dead_letters", self._schema, (str(_BATCH),)), 0, 0)
            count += moved
            if moved < _BATCH:
                return count

    async def _batches(self, jobs: Iterable[int] | DlqFilter) -> AsyncIterator[list[int]]:
        """Ids of entries, 500 at a time; those of a filter from the newest on, so that none comes twice."""
        if not isinstance(jobs, DlqFilter):
            if isinstance(jobs, (str, bytes)) or not isinstance(jobs, Iterable):
                raise InvalidJobError("jobs", jobs, "a list of ids, or a DlqFilter")
            ids = [_id(one) for one in jobs]
            for start in range(0, len(ids), _BATCH):
                yield ids[start : start + _BATCH]
            return
        cursor: str | None = None
        while True:
            async with self._connection(None) as chosen:
                found, cursor = await self._page(chosen, _filter_parameters(jobs), _BATCH, _place(cursor))
            if found:
                yield [job.id for job in found]
            if cursor is None:
                return

    async def _page(
        self,
        connection: Connection,
        filter: Parameters,
        limit: int,
        place: tuple[str | None, str | None] = (None, None),
    ) -> tuple[list[DlqJob], str | None]:
        """Entries that match from a place on, and the cursor of the next page."""
        found = await run(connection, "list_dead_letters", self._schema, (*filter, *place, str(limit + 1)))
        jobs = [_entry(found, row) for row in range(min(found.ntuples, limit))]
        return jobs, _cursor(jobs[-1]) if found.ntuples > limit else None


def _filter_parameters(filter: DlqFilter, ids: list[int] | None = None) -> Parameters:
    if not isinstance(filter, DlqFilter):
        raise InvalidJobError("filter", filter, "a DlqFilter")
    return (
        None if ids is None else number_array(ids),
        filter.task_identifier,
        filter.queue_name,
        filter.job_key,
        moment(filter.failed_after),
        moment(filter.failed_before),
        filter.error_type,
        filter.fingerprint,
        filter.error_text,
        str(SEARCHED) if filter.by_text_alone else None,
    )


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


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _BIGINT:
        raise InvalidJobError("id", value, "an entry's id: an integer from 1 to 2^63 - 1")
    return value


def _cursor(last: DlqJob) -> str:
    micros = 0 if last.failed_at is None else (last.failed_at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{micros}.{last.id}".encode()).decode()


def _place(cursor: str | None) -> tuple[str | None, str | None]:
    if cursor is None:
        return None, None
    try:
        micros, entry = base64.urlsafe_b64decode(cursor.encode()).decode("ascii").split(".")
        return str(int(micros)), str(int(entry))
    except (binascii.Error, ValueError, AttributeError) as error:
        raise InvalidJobError("cursor", cursor, "the cursor of a page that list_dlq_jobs gave") from error


def _entry(found: PGresult, row: int) -> DlqJob:
    return DlqJob(
        id=_int(found, row, 0),
        original_job_id=_number(found, row, 1),
        task_identifier=text(found, row, 2) or "",
        payload_bytes=found.get_value(row, 3) or b"null",
        queue_name=text(found, row, 4),
        priority=_int(found, row, 5),
        job_key=text(found, row, 6),
        attempts=_number(found, row, 7),
        max_attempts=_number(found, row, 8),
        flags=tuple(orjson.loads(text(found, row, 9) or "[]")),
        failure_reason=text(found, row, 10) or "",
        failure_count=_int(found, row, 11),
        last_error=text(found, row, 12),
        error_type=text(found, row, 13),
        fingerprint=text(found, row, 14),
        original_created_at=_time(found, row, 15),
        original_run_at=_time(found, row, 16),
        failed_at=_time(found, row, 17),
        requeued_count=_int(found, row, 18),
        last_requeued_at=_time(found, row, 19),
        requeued_job_id=_number(found, row, 20),
        notes=text(found, row, 21),
        earlier=tuple(orjson.loads(text(found, row, 22) or "[]")),
    )


def _number(found: PGresult, row: int, column: int) -> int | None:
    raw = text(found, row, column)
    return None if raw is None else int(raw)


def _int(found: PGresult, row: int, column: int) -> int:
    return _number(found, row, column) or 0


def _time(found: PGresult, row: int, column: int) -> datetime | None:
    """A time in microseconds; None for null and for what no datetime can hold."""
    micros = _number(found, row, column)
    try:
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None
