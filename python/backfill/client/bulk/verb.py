"""Adding many jobs: the verb `enqueue_bulk`, all or nothing or in committed parts, with memory for one chunk."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final, TypeVar, Unpack, cast, overload

import psycopg
from psycopg.pq import TransactionStatus

from backfill.checks import check_int
from backfill.client.bulk.items import CHUNK_ROWS, Encoder, ItemError, Reader, Row, check_items
from backfill.client.bulk.producers import ProducerTransaction
from backfill.client.bulk.writing import BulkTransaction
from backfill.client.connect import ClientLife
from backfill.client.execute import run, surely_undone, translated
from backfill.client.naming import REMEMBERED, NameMaker, make_names, names_of
from backfill.client.prepare import BulkKeywords, check_keywords, checked_spec
from backfill.client.ways import goes_by_functions
from backfill.errors import BackfillError, BulkEnqueueError, CommitUnknownError, InvalidJobError
from backfill.jobs import UNSAID, BulkOutcome, JobSpec, NewJob
from backfill.said import named
from backfill.storage.types import Connection
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
        connection: Connection | None = None,
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
        connection: Connection | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome: ...
    @overload  # apart from the one above, so that pyright sees payloads in a generator as the task's
    async def enqueue_bulk(
        self,
        task: Task[P, Any],
        payloads: Iterable[PayloadOf[P] | NewJob[Any]],
        /,
        *,
        commit_every: int | None = None,
        return_ids: bool = False,
        spec: JobSpec | None = None,
        connection: Connection | None = None,
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
        connection: Connection | None = None,
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
        connection: Connection | None = None,
        **keywords: Unpack[BulkKeywords],
    ) -> BulkOutcome:
        """Add many jobs: `enqueue_bulk(task.job(p) for p in ...)` or `enqueue_bulk(task, payloads)`.

        All or nothing: one transaction, of which an error or a cancellation leaves no job. With `commit_every=n` each n
        jobs are committed as they come. Jobs go by COPY, a chunk (2,000 jobs, or about a megabyte) being read and
        encoded while the one before is packed off the loop and taken by the server. Memory holds two or three chunks,
        whatever the number of jobs, and the event loop is given its turn every few milliseconds. Workers are told once
        a transaction.

        The iterable may use the client itself, or wait for somebody who does: while it is read, the call holds nothing
        that another one waits for. Jobs with keys, and jobs whose task or queue is new and cannot be made at once, wait
        in a temporary table of the transaction and are written when the iterable is at its end. An asynchronous
        iterable of more than one chunk never has the client's last connection: it has one beside the pool then, until
        the call ends. A generator, asynchronous or not, is closed when the call ends, however it ends.

        A job that is due at once has for its run_at the database's time when its chunk was read, so that the jobs of a
        long call do not all share one; `delay` counts from it too. It never goes back within a transaction, and is
        never later than the commit.

        Jobs of one serial queue that have no key run in the order given. Jobs with keys are added or applied as
        `enqueue` does; a key that comes twice is applied in order. Calls that write keys in more than one statement (a
        chunk, a mode, a key's next time each take one) do so one after the other, by a lock of the schema, which is
        taken when the iterable is at its end. Names of tasks and queues that are new stay behind when a call is undone;
        they are only names.

        Args:
            jobs: any iterable or async iterable of `NewJob`s, tasks mixed; or a task, or its name, for `payloads`.
            payloads: any iterable or async iterable of that task's payloads; an item may be a NewJob instead.
            commit_every: commit after each this many jobs, from 1; not inside a caller's transaction.
            return_ids: give back the jobs' ids, in the order given; memory then holds a number for each.
            spec: what each job's own spec leaves unsaid; no job_key.
            connection: a psycopg connection to write on, inside its transaction (a savepoint, undone alone by an
                error), or in a transaction of its own where it is in autocommit. The iterable may use this connection
                too. Once the call has returned, the caller's transaction holds, until it ends, the keys and the new
                names that were written, and a lock of the schema where there were any: calls that use these keys or
                names, and bulk calls that write keys in several statements, wait for that. Do not let it wait for them.
            keywords: the same as in `spec`: `run_at`, `delay`, `priority`, `queue`, `max_attempts`, `retry`, `timeout`,
                `deadline`, `flags`.

        Returns:
            How many jobs were written, and their ids where they were asked for.

        Raises:
            BulkEnqueueError: it stopped on the way; `written` says how many jobs are committed, `unknown` how many more
                may be since the connection was lost while they were, `index` which item was bad or could not be had
                (then what it, or the iterable, raised is the cause), `__cause__` why.
            InvalidJobError: the arguments themselves; a single payload or job in the place of many, too.
            TypeError: one thing was said twice, or a keyword is unknown.
            DatabaseConnectionError: no connection at the start.
            ClientClosedError: the client was closed.
        """
        check_keywords("enqueue_bulk", keywords, BulkKeywords.__optional_keys__)
        check_int("commit_every", commit_every, _COMMIT_LIMIT)
        reader = _reader(jobs, payloads, _defaults(spec, keywords))
        call = _Call(self._schema, reader, commit_every, [] if return_ids else None)
        async with reader:
            self._refuse_closed()
            if not await call.read():
                pass
            elif connection is None:
                # A stream may wait for other calls, so it never has the last connection of the client's.
                apart = reader.is_async and not reader.exhausted
                async with aclosing(NameMaker(self._schema, self._beside)) as maker:
                    await self._retrying(
                        lambda own: call.write(own, owned=True, maker=maker), harmless=True, apart=apart
                    )
            else:
                async with self._connection(connection) as chosen:
                    await call.write(chosen, owned=False)
        return BulkOutcome(call.written, call.ids)


class _Call:
    """One call's progress.

    Attributes:
        written: jobs committed so far (in a caller's transaction: written).
        ids: of all jobs, where they were asked for.
    """

    def __init__(self, schema: str, reader: Reader, commit_every: int | None, ids: list[int] | None) -> None:
        self.written = 0
        self.ids = ids
        self._schema = schema
        self._reader = reader
        self._share = commit_every or sys.maxsize
        self._in_parts = commit_every is not None
        self._made: tuple[set[str], set[str]] = set(), set()
        self._maker: NameMaker | None = None
        self._rows: list[Row] = []
        self._committing = False
        self._begun = self._lent = True

    async def read(self) -> bool:
        """Read the first chunk of a transaction, while none is open: whether there is anything to write."""
        with self._stopping():
            self._rows = await self._reader.read(min(self._share, CHUNK_ROWS))
        return bool(self._rows)

    async def write(self, connection: Connection, *, owned: bool, maker: NameMaker | None = None) -> None:
        """Write all there is, in one transaction or several.

        Args:
            connection: to write on.
            owned: whether it is the client's own.
            maker: makes names on another connection.
        """
        self._maker = maker
        self._begun = self._lent = not owned
        if not owned:
            await self._join(connection)
        own_transaction = connection.info.transaction_status is TransactionStatus.IDLE
        while self._rows:
            with self._stopping(connection):
                if own_transaction:
                    await self._make_names(connection)
                async with connection.transaction():
                    await self._write_share(connection, own=own_transaction)
                    self._committing = own_transaction
            self.written, self._committing = self._reader.count, False
            await self.read()

    async def _write_share(self, connection: Connection, *, own: bool) -> None:
        left = self._share
        kind = ProducerTransaction if await goes_by_functions(connection, self._schema) else BulkTransaction
        async with kind(connection, self._schema, self.ids, own=own, maker=self._maker) as transaction:
            self._begun = True
            while self._rows:
                left -= len(self._rows)
                await transaction.write(self._rows, last=self._reader.exhausted or not left)
                if self._lent and self._reader.is_async:
                    await transaction.pause()  # the caller's code may use its connection itself
                self._rows = await self._reader.read(min(left, CHUNK_ROWS)) if left else []

    async def _join(self, connection: Connection) -> None:
        """Begin the caller's transaction where the driver would with its first statement, so that ours is a part of it."""
        idle = connection.info.transaction_status is TransactionStatus.IDLE
        if self._in_parts and not (idle and connection.autocommit):
            raise InvalidJobError(
                "commit_every", self._share, "not inside a caller's transaction, which commits as a whole"
            )
        if idle and not connection.autocommit:
            await run(connection, "bulk_begin", self._schema, (self._schema,))

    async def _make_names(self, connection: Connection) -> None:
        """Make the names that a transaction begins with before it begins.

        While it lasts, a new one would block others.
        """
        for made in self._made:
            if len(made) > REMEMBERED:
                made.clear()
        new_tasks, new_queues = map(set.difference, names_of([shape for shape, _ in self._rows]), self._made)
        # A stream that goes on may itself be making one of them in a transaction that it has not ended.
        briefly = self._reader.is_async and not self._reader.exhausted
        await make_names(connection, self._schema, new_tasks, new_queues, briefly=briefly)
        self._made[0].update(new_tasks)
        self._made[1].update(new_queues)

    @contextmanager
    def _stopping(self, connection: Connection | None = None) -> Iterator[None]:
        """Tell how far the call came, whatever stopped it."""
        try:
            yield
        except ItemError as stop:
            error = stop.__cause__ or stop
            raise self._stopped(f"item {stop.index}: {named(error)}", stop.index) from error
        except psycopg.Error as error:
            lost = connection is None or connection.closed
            if not self._begun and (lost or surely_undone(error)):
                raise  # nothing is written yet, so that another connection will do
            committing = self._committing
            seen = translated(error, connection, where="the server", schema=self._schema, writing=committing)
            if seen is not error:
                seen.__cause__ = error
            unknown = self._reader.count - self.written if isinstance(seen, CommitUnknownError) else 0
            raise self._stopped(named(seen), None, unknown) from seen
        except BackfillError as error:
            raise self._stopped(named(error), None) from error

    def _stopped(self, reason: str, index: int | None, unknown: int = 0) -> BulkEnqueueError:
        doubt = f" (and {unknown} more, or none of them)" if unknown else ""
        message = f"bulk enqueue stopped with {self.written} jobs written{doubt}: {reason}"
        return BulkEnqueueError(message, written=self.written, index=index, unknown=unknown)


def _defaults(spec: JobSpec | None, keywords: Mapping[str, Any]) -> JobSpec:
    defaults = (UNSAID if spec is None else checked_spec(spec)).merged(**keywords)
    if defaults.job_key is not None:
        raise InvalidJobError(
            "job_key", defaults.job_key, "one job's own: give it to a NewJob, NewJob(task, payload, spec)"
        )
    return defaults


def _reader(jobs: object, payloads: object, defaults: JobSpec) -> Reader:
    if payloads is None:
        check_items("jobs", jobs, task=None)
        return Reader(cast("Stream[Any]", jobs), Encoder(None, defaults))
    if not isinstance(jobs, (str, Task)):
        raise InvalidJobError("task", jobs, "a task's name or a registered task, before its payloads")
    encoder = Encoder(jobs, defaults)
    check_items("payloads", payloads, task=jobs)
    return Reader(cast("Stream[Any]", payloads), encoder)
