"""Ends: how jobs finished, one or many, and a job's result, awaited."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any, Final, TypeVar, overload

import psycopg

from backfill.checks import check_duration
from backfill.client.connect import ClientLife
from backfill.client.ends.watch import EndWatch
from backfill.client.starting import DSN_VARIABLE
from backfill.client.verbs import ends as verbs
from backfill.client.verbs.jobs import JobReference, reference_id
from backfill.ends import EndFilter, EndHow, EndList, JobEnd
from backfill.errors import (
    BackfillError,
    ClientClosedError,
    EndNotKeptError,
    InvalidJobError,
    JobCancelledError,
    JobNotCompletedError,
    PayloadDecodeError,
    ResultTimeoutError,
)
from backfill.jobs import EnqueueOutcome
from backfill.storage.connection import connect
from backfill.storage.types import Connection

R = TypeVar("R")
_ANY: Final = EndFilter()
_LAST_LOOK_SECONDS: Final = 2.0


class EndVerbs(ClientLife):
    """The verbs for how jobs finished, which tasks with `keep=` have written."""

    _watch: EndWatch | None = None

    async def end(self, job: JobReference, *, connection: Connection | None = None) -> JobEnd | None:
        """How a job finished.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a psycopg connection to read on; else one of the client's.

        Returns:
            Its end, or None: it has not finished, or nothing is kept of it (any more).

        Raises:
            InvalidJobError: no id.
        """
        return await self._run(verbs.end(job), connection)

    async def ends(
        self,
        filter: EndFilter = _ANY,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> EndList:
        """A page of the ends that match, newest first.

        Args:
            filter: which; all if not given.
            limit: ends at most, 1 to 1,000.
            cursor: where the page begins: the one before's `cursor`.
            connection: a psycopg connection to read on; else one of the client's.

        Raises:
            InvalidJobError: a value out of range, or a cursor that is none.
        """
        return await self._run(verbs.ends(filter, limit=limit, cursor=cursor), connection)

    @overload
    async def result(self, job: EnqueueOutcome[R], *, timeout: float | timedelta | None = None) -> R: ...
    @overload
    async def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any: ...
    async def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any:
        """What a job's handler returns, once it has: the task must keep its ends (`keep=`).

        It is told of the end as soon as it is committed, and looks for it every few seconds beneath, also while the
        database is away. Any number of calls share one connection. Await it once the job is committed.

        Args:
            job: what `enqueue` gave; a `Job` or an id will do, whose result is plain JSON then.
            timeout: how long to wait at most, a timedelta or seconds; as long as it takes if not given.

        Returns:
            The result as the handler is annotated to return it, where the job was enqueued by its task, else plain
            JSON.

        Raises:
            ResultTimeoutError: no end came in time; the job goes on.
            JobNotCompletedError: the job failed for good, was discarded, or was superseded; its `end` says all.
            JobCancelledError: an operator ended it.
            EndNotKeptError: there is no end to wait for: the task keeps none, which is said at once where it is known,
                the job was removed before it ran, it was failed by hand, another program ended it, or what was kept has
                expired.
            PayloadDecodeError: the result does not fit the annotation, or Python's decoder refuses it.
            InvalidJobError: no id, or no timeout.
            ClientClosedError: the client was closed meanwhile.
        """
        number, seconds = reference_id("job", job), _seconds(timeout)
        _check_kept(job)
        try:
            async with asyncio.timeout(seconds):
                await self._opened(reopen=False)
                how = await self._ends_watched().wait(number)
        except TimeoutError:
            how = await self._last_look(number)
            if how is None:
                raise ResultTimeoutError(f"job {number}: no end within {seconds:g} s; it may still run") from None
        if how is None:
            raise EndNotKeptError(
                f"job {number} left no end, and does not run (again): its task has no keep=, it was removed before it ran, it "
                "was failed by hand, another program ended it, or its end has expired; where it was enqueued in a transaction, "
                "await it after the commit"
            )
        if how.how is not EndHow.COMPLETED or how.result_bytes is None:
            raise (JobCancelledError if how.how is EndHow.CANCELLED else JobNotCompletedError)(how)
        source = job.source if isinstance(job, EnqueueOutcome) else None
        if source is None or (source.identifier != how.task_identifier and how.task_identifier not in source.aliases):
            return how.result
        try:
            return source.decode_result(how.result_bytes)
        except PayloadDecodeError as error:
            raise how.unreadable(error) from error

    async def _last_look(self, number: int) -> JobEnd | None:
        """The end of a job whose time is up: it may have been written while nothing was heard of it."""
        try:
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                return await self._run(verbs.end(number))
        except (TimeoutError, BackfillError, psycopg.Error, OSError):
            return None

    async def _end(self) -> None:
        """Close the client, and end every waiting for a result with `ClientClosedError`."""
        watch, self._watch = self._watch, None
        if watch is not None and watch.loop is asyncio.get_running_loop():
            watch.fail(ClientClosedError("this client was closed while a result was awaited"))
            await watch.close()
        await super()._end()

    def _ends_watched(self) -> EndWatch:
        if self._watch is None or self._watch.loop is not asyncio.get_running_loop():
            dsn = self._dsn or os.environ.get(DSN_VARIABLE)
            listening = None
            if self._given_pool is None and dsn is not None:
                listening = lambda: connect(dsn, application_name="backfill results")  # noqa: E731
            self._watch = EndWatch(self._schema, connect=listening, lend=lambda: self._connection(None))
        return self._watch


def _check_kept(job: object) -> None:
    """Refuse to wait for the result of a task that keeps none."""
    source = job.source if isinstance(job, EnqueueOutcome) else None
    if source is not None and source.keep is None:
        raise EndNotKeptError(
            f"task {source.identifier!r} keeps no results: give its decorator keep=, such as "
            f"@tasks.task({source.identifier!r}, keep=timedelta(hours=1)), and start its workers again"
        )


def _seconds(timeout: object) -> float | None:
    if isinstance(timeout, timedelta):
        check_duration("timeout", timeout, zero=True)
        return timeout.total_seconds()
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= 1e9:
        raise InvalidJobError("timeout", timeout, "a timedelta, or seconds from 0 to a billion")
    return float(timeout)
