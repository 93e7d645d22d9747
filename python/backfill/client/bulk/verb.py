"""The verb `enqueue_bulk` adds many jobs, all or nothing or in committed parts, with memory for a few chunks."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final, TypeVar, Unpack, cast, overload

import psycopg

from backfill.checks import check_int
from backfill.client.bulk.intercepted import InterceptedReader
from backfill.client.bulk.items import CHUNK_ROWS, Encoder, ItemError, Reader, Row, check_items
from backfill.client.bulk.producers import ProducerTransaction
from backfill.client.bulk.writing import BulkTransaction
from backfill.client.carrier import AnyConnection, Carrier, is_idle
from backfill.client.connect import ClientLife
from backfill.client.execute import run, surely_undone, translated
from backfill.client.gathering.notices import Notices
from backfill.client.metering import BulkMeter
from backfill.client.naming import REMEMBERED, NameMaker, make_names, names_of
from backfill.client.prepare import BulkKeywords, check_keywords, checked_spec
from backfill.client.ways import goes_by_functions
from backfill.errors import BackfillError, BulkEnqueueError, CommitUnknownError, InvalidJobError
from backfill.jobs import UNSAID, BulkOutcome, JobSpec, NewJob
from backfill.said import named
from backfill.storage.types import Lent
from backfill.tasks import PayloadOf, Task

P = TypeVar("P")
Stream = Iterable[P] | AsyncIterable[P]

_COMMIT_LIMIT: Final = range(1, 2**31)


class BulkVerb(ClientLife):
    """The verb that adds many jobs."""

    @overload
    async def enqueue_bulk(
        self,
        jobs: Stream[NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload
    async def enqueue_bulk(
        self,
        task: Task[P, Any],
        payloads: AsyncIterable[PayloadOf[P] | NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload  # apart from the one above, so that pyright infers the task's payload type in a generator
    async def enqueue_bulk(
        self,
        task: Task[P, Any],
        payloads: Iterable[PayloadOf[P] | NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload
    async def enqueue_bulk(
        self,
        task: str,
        payloads: Stream[Any],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    async def enqueue_bulk(
        self,
        jobs: Stream[NewJob[Any]] | Task[Any, Any] | str,
        payloads: Stream[Any] | None = None,
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Lent | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome:
        """Add many jobs: `enqueue_bulk(task.job(p) for p in ...)` or `enqueue_bulk(task, payloads)`.

        The call adds all jobs or none: it is one transaction, and an error or a cancellation undoes it. With
        `commit_every=n`, every n jobs are committed as they come. Jobs are sent by COPY. While one chunk (2,000 jobs,
        or about a megabyte) is read and encoded, the chunk before it is packed in a thread and received by the server.
        Memory holds two or three chunks, whatever the number of jobs, and the event loop gets its turn every few
        milliseconds. Workers are notified once per transaction.

        The iterable may itself use the client, or wait for somebody who does: while the iterable is read, the call
        holds nothing that another call could wait for. Jobs with keys, and jobs whose task or queue is new and cannot
        be made at once, wait in a temporary table of the transaction and are written when the iterable is at its end.
        For an asynchronous iterable of more than one chunk, the call never takes the client's last connection: if only
        that one is left, it uses an extra connection outside the pool until the call ends. A generator, asynchronous or
        not, is closed when the call ends, however it ends.

        The run_at of a job that is due at once is the database's time when the job's chunk was read, so that the jobs
        of a long call do not all share one time; `delay` counts from that time too. This time never goes back within a
        transaction, and is never later than the commit.

        If plugins of the client have interceptors of `BeforeJobSchedule`, they are asked about each item when it is
        read, under the same rule as an asynchronous iterable. Skip leaves the item out, and the outcome counts it. Fail
        stops the call, as a bad item does.

        Jobs of one serial queue that have no key run in the order given. Jobs with keys are added or applied as
        `enqueue` does; if a key comes twice, its jobs are applied in order. Each chunk, each mode and each repetition
        of a key takes a statement of its own. Jobs with `unique_for` are written in the order of their keys, before the
        other jobs with keys. Calls that write keys in more than one statement do so one after the
        other: they take a lock of the schema when the iterable is at its end. The new names of tasks and queues that a
        call made stay when the call is undone; they do no harm.

        Args:
            jobs: any iterable or async iterable of `NewJob`s, which may be of different tasks; or a task, or a task's
                name, to go with `payloads`.
            payloads: any iterable or async iterable of that task's payloads; an item may be a NewJob instead.
            commit_every: commit after every so many jobs, from 1; not possible inside a caller's transaction.
            return_ids: whether to return the jobs' ids, in the order of the jobs; memory then holds a number for each
                job.
            spec: settings for all jobs, which apply where a job's own spec gives none; without a job_key.
            connection: a connection of yours to write on. The call writes inside the connection's transaction, in a
                savepoint that an error undoes alone; in autocommit it uses a transaction of its own. The iterable may
                use this connection too. After the call, the caller's transaction holds the keys and the new names that
                were written, and a lock of the schema if there were any, until it ends. Calls that use these keys or
                names, and bulk calls that write keys in several statements, wait for the end of that transaction. The
                transaction must therefore not wait for such calls.
            keywords: the same settings as in `spec`: `run_at`, `delay`, `priority`, `queue`, `max_attempts`, `retry`,
                `timeout`, `deadline`, `flags`, `limit_by`, `unique_for`; and `notify` (False: the workers are not told
                of the jobs).

        Returns:
            How many jobs were written, their ids where they were asked for, how many items interceptors left out, and
            how many jobs with `unique_for` were not added, because their keys are reserved.

        Raises:
            BulkEnqueueError: the call stopped before the end. `written` says how many jobs are committed. `unknown`
                says how many more may be, because the connection was lost during their commit. `index` says which item
                was bad, could not be read, or was refused by an interceptor. `__cause__` is the reason, such as the
                error that the item, the iterable or an interceptor raised, or a `JobScheduleRefusedError`.
            InvalidJobError: an argument is bad, such as a single payload or job in the place of many.
            TypeError: a setting was given twice, or a keyword is unknown.
            DatabaseConnectionError: there was no connection at the start.
            ClientClosedError: the client was closed.
        """
        check_keywords("enqueue_bulk", keywords, BulkKeywords.__optional_keys__)
        check_int("commit_every", commit_every, _COMMIT_LIMIT)
        notify = keywords.pop("notify", True)
        notices = self._adding.notices() if notify and connection is None else None
        items, encoder = _items(jobs, payloads, _defaults(spec, keywords))
        if self._tracer is None:
            return await self._write_all(items, encoder, commit_every, notices, connection, ids=return_ids, tell=notify)
        with self._tracer.sending(encoder.task, bulk=True) as span:
            encoder.carry(span.flags)
            answer = await self._write_all(
                items, encoder, commit_every, notices, connection, ids=return_ids, tell=notify
            )
            span.sent(answer.written, task=encoder.only_task)
            return answer

    async def _write_all(
        self,
        items: Stream[Any],
        encoder: Encoder,
        commit_every: int | None,
        notices: Notices | None,
        connection: Lent | None,
        *,
        ids: bool,
        tell: bool,
    ) -> BulkOutcome:
        """Read all items, and write their jobs."""
        reader = self._reader(items, encoder, [] if ids else None)
        call = _Call(self._schema, reader, commit_every, [] if ids else None, tell=tell, notices=notices)
        with call.meter:
            await self._write_read(reader, call, connection)
        return BulkOutcome(call.written, call.ids, reader.skipped, reader.skipped_indexes, call.kept)

    async def _write_read(self, reader: Reader, call: _Call, connection: Lent | None) -> None:
        """Write the jobs that are read."""
        async with reader:
            self._refuse_closed()
            if not await call.read():
                pass
            elif connection is None:
                # A stream may wait for other calls, so it must never take the client's last connection.
                apart = reader.yields and not reader.exhausted
                async with aclosing(NameMaker(self._schema, self._beside)) as maker:
                    await self._retrying(
                        lambda own: call.write(own, owned=True, maker=maker), harmless=True, apart=apart
                    )
            else:
                async with self._connection(connection) as chosen:
                    await call.write(chosen, owned=False)

    def _reader(self, items: Stream[Any], encoder: Encoder, skipped: list[int] | None) -> Reader:
        """Make what reads the items of one call."""
        if self._scheduling is None:
            return Reader(items, encoder)
        return InterceptedReader(items, encoder, self._scheduling, skipped)


class _Call:
    """The progress of one bulk call.

    Attributes:
        written: how many jobs are committed so far; in a caller's transaction, how many are written.
        skipped: how many of the items that were read until then were left out.
        kept: how many of them were not added, because their keys are reserved.
        meter: counts the jobs for the metrics.
        ids: the ids of all jobs; None if nobody asked for them.
    """

    def __init__(
        self,
        schema: str,
        reader: Reader,
        commit_every: int | None,
        ids: list[int] | None,
        *,
        tell: bool,
        notices: Notices | None,
    ) -> None:
        self.written = self.skipped = self.kept = 0
        self.meter = BulkMeter()
        self.ids = ids
        self._schema = schema
        self._tell = tell and notices is None
        self._notices = notices
        self._reader = reader
        self._share = commit_every or sys.maxsize
        self._in_parts = commit_every is not None
        self._made: tuple[set[str], set[str]] = set(), set()
        self._maker: NameMaker | None = None
        self._rows: list[Row] = []
        self._committing = False
        self._share_kept = 0
        self._begun = self._lent = True

    async def read(self) -> bool:
        """Read the first chunk of a transaction, before it begins, and tell whether there is anything to write."""
        with self._stopping():
            self._rows = await self._reader.read(min(self._share, CHUNK_ROWS))
        return bool(self._rows)

    async def write(self, connection: AnyConnection, *, owned: bool, maker: NameMaker | None = None) -> None:
        """Write all rows, in one transaction or several.

        Args:
            connection: the connection to write on.
            owned: whether the connection is the client's own.
            maker: makes new names on another connection.
        """
        self._maker = maker
        self._begun = self._lent = not owned
        if not owned:
            await self._join(connection)
        own_transaction = is_idle(connection)
        while self._rows:
            with self._stopping(connection):
                if own_transaction:
                    await self._make_names(connection)
                async with connection.transaction():
                    await self._write_share(connection, own=own_transaction)
                    self._committing = own_transaction
            self.meter.committed()
            self.kept += self._share_kept
            before, self._share_kept = self.written, 0
            self.written, self.skipped = self._reader.count - self.kept, self._reader.skipped
            if self._notices is not None and self.written > before:
                self._notices.add(self.written - before)
            self._committing = False
            await self.read()

    async def _write_share(self, connection: AnyConnection, *, own: bool) -> None:
        left = self._share
        kind = ProducerTransaction if await goes_by_functions(connection, self._schema) else BulkTransaction
        async with kind(connection, self._schema, self.ids, own=own, maker=self._maker, tell=self._tell) as transaction:
            self._begun = True
            while self._rows:
                left -= len(self._rows)
                self.meter.note(shape for shape, _ in self._rows)
                await transaction.write(self._rows, last=self._reader.exhausted or not left)
                if self._lent and self._reader.yields:
                    await transaction.pause()  # the caller's code may use the connection itself
                self._rows = await self._reader.read(min(left, CHUNK_ROWS)) if left else []
        self._share_kept = len(transaction.kept)
        self.meter.leave_out(transaction.kept)

    async def _join(self, connection: AnyConnection) -> None:
        """Begin the caller's transaction, if its first statement would do so, so that ours becomes a part of it."""
        idle = is_idle(connection)
        if self._in_parts and not (idle and connection.autocommit):
            raise InvalidJobError(
                "commit_every", self._share, "not inside a caller's transaction, which commits as a whole"
            )
        if idle and not connection.autocommit:
            await run(connection, "bulk_begin", self._schema, (self._schema,))

    async def _make_names(self, connection: AnyConnection) -> None:
        """Make the names that a transaction needs first, before the transaction begins.

        A name that is made within the transaction would block others until the transaction ends.
        """
        for made in self._made:
            if len(made) > REMEMBERED:
                made.clear()
        new_tasks, new_queues = map(set.difference, names_of([shape for shape, _ in self._rows]), self._made)
        # A stream that has more items may itself be making one of these names in a transaction that is still open.
        briefly = self._reader.yields and not self._reader.exhausted
        await make_names(connection, self._schema, new_tasks, new_queues, briefly=briefly)
        self._made[0].update(new_tasks)
        self._made[1].update(new_queues)

    @contextmanager
    def _stopping(self, connection: AnyConnection | None = None) -> Iterator[None]:
        """Turn an error that stops the call into a `BulkEnqueueError` that says how far the call came."""
        try:
            yield
        except ItemError as stop:
            error = stop.__cause__ or stop
            raise self._stopped(f"item {stop.index}: {named(error)}", stop.index) from error
        except psycopg.Error as error:
            lost = connection is None or connection.closed
            if not self._begun and (lost or surely_undone(error)):
                raise  # nothing is written yet, so the call can begin again on another connection
            committing = self._committing
            seen = translated(error, connection, where="the server", schema=self._schema, writing=committing)
            if seen is not error:
                seen.__cause__ = error
            doubtful = self._reader.count - self.kept - self._share_kept - self.written
            unknown = doubtful if isinstance(seen, CommitUnknownError) else 0
            raise self._stopped(named(seen), None, unknown) from seen
        except BackfillError as error:
            raise self._stopped(named(error), None) from error
        except Exception as error:
            if not isinstance(connection, Carrier) or not isinstance(error, connection.errors):
                raise
            raise self._stopped(named(error), None) from error

    def _stopped(self, reason: str, index: int | None, unknown: int = 0) -> BulkEnqueueError:
        doubt = f" (and {unknown} more, or none of them)" if unknown else ""
        message = f"bulk enqueue stopped with {self.written} jobs written{doubt}: {reason}"
        return BulkEnqueueError(message, written=self.written, index=index, unknown=unknown, skipped=self.skipped)


def _defaults(spec: JobSpec | None, keywords: Mapping[str, Any]) -> JobSpec:
    defaults = (UNSAID if spec is None else checked_spec(spec)).merged(**keywords)
    if defaults.job_key is not None:
        raise InvalidJobError(
            "job_key", defaults.job_key, "one job's own: give it to a NewJob, NewJob(task, payload, spec)"
        )
    return defaults


def _items(jobs: object, payloads: object, defaults: JobSpec) -> tuple[Stream[Any], Encoder]:
    """Check the first two arguments of a call, and return the items and what makes rows of them."""
    if payloads is None:
        check_items("jobs", jobs, task=None)
        return cast("Stream[Any]", jobs), Encoder(None, defaults)
    if not isinstance(jobs, (str, Task)):
        raise InvalidJobError("task", jobs, "a task's name or a registered task, before its payloads")
    encoder = Encoder(jobs, defaults)
    check_items("payloads", payloads, task=jobs)
    return cast("Stream[Any]", payloads), encoder
