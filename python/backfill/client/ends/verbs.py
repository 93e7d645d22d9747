"""Verbs that read how one or many jobs finished, and that wait for a job's result."""

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
from backfill.storage.types import Lent

R = TypeVar("R")
_ANY: Final = EndFilter()
_LAST_LOOK_SECONDS: Final = 2.0


class EndVerbs(ClientLife):
    """The verbs for ends: records of how jobs finished, which are kept for tasks with `keep=`."""

    _watch: EndWatch | None = None

    async def end(self, job: JobReference, *, connection: Lent | None = None) -> JobEnd | None:
        """Read how a job finished.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The job's end, or None if the job has not finished, or if no end of it is kept (any more).

        Raises:
            InvalidJobError: `job` is not an id.
        """
        return await self._run(verbs.end(job), connection)

    async def ends(
        self,
        filter: EndFilter = _ANY,
        *,
        limit: int = 50,
        cursor: str | None = None,
        connection: Lent | None = None,
    ) -> EndList:
        """Read a page of the ends that match a filter, newest first.

        Args:
            filter: which ends; all if not given.
            limit: the largest number of ends on the page, 1 to 1,000.
            cursor: where the page begins: the `cursor` of the page before.
            connection: a connection of yours to read on; if not given, one of the client's.

        Raises:
            InvalidJobError: a value is out of range, or the cursor is not one that this verb gave.
        """
        return await self._run(verbs.ends(filter, limit=limit, cursor=cursor), connection)

    @overload
    async def result(self, job: EnqueueOutcome[R], *, timeout: float | timedelta | None = None) -> R: ...
    @overload
    async def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any: ...
    async def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any:
        """Wait for a job to finish and return what its handler returned; the task must keep its ends (`keep=`).

        The call is notified of the end as soon as the end is committed. It also looks for the end every few seconds,
        and continues to wait while the database cannot be reached. Any number of calls share one connection. Await the
        result only after the job is committed.

        Args:
            job: what `enqueue` returned; a `Job` or an id will do, but its result is then plain JSON.
            timeout: the longest time to wait, a timedelta or seconds; if not given, the call waits as long as it takes.

        Returns:
            The result in the type that the handler is annotated to return, if the job was enqueued by its registered
            task; otherwise plain JSON.

        Raises:
            ResultTimeoutError: the job had no end in time; it is not stopped.
            JobNotCompletedError: the job failed for good, was discarded, or was superseded; the error's `end` has the
                details.
            JobCancelledError: an operator ended the job.
            EndNotKeptError: there is no end to wait for: the task keeps none (the error is raised at once if that is
                known), the job was removed before it ran, it was failed by hand, another program ended it, or its end
                has expired.
            PayloadDecodeError: the result does not fit the annotation, or Python's JSON decoder refuses it.
            InvalidJobError: `job` is not an id, or `timeout` is not a timeout.
            ClientClosedError: the client is closed, or was closed while the call waited.
        """
        number, seconds = reference_id("job", job), _seconds(timeout)
        _check_kept(job)
        how = await self._awaited(number, seconds)
        if how is None:
            raise EndNotKeptError(
                f"job {number} left no end, and does not run (again): its task has no keep=, it was removed before it "
                "ran, it "
                "was failed by hand, another program ended it, or its end has expired; where it was enqueued in a "
                "transaction, "
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

    async def _awaited(self, number: int, seconds: float | None) -> JobEnd | None:
        """Wait for the end of a job; None if the job is gone without one.

        Raises:
            ResultTimeoutError: there was no end in time.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._opened(reopen=False)
                return await self._ends_watched().wait(number)
        except TimeoutError:
            how = await self._last_look(number)
            if how is None:
                raise ResultTimeoutError(f"job {number}: no end within {seconds:g} s; it may still run") from None
            return how

    async def _last_look(self, number: int) -> JobEnd | None:
        """Look once more for the end of a job after the timeout: it may have been written without a notification."""
        try:
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                return await self._run(verbs.end(number))
        except (TimeoutError, BackfillError, psycopg.Error, OSError):
            return None

    async def _end(self) -> None:
        """Close the client, and raise `ClientClosedError` in every call that waits for a result."""
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
            self._watch = EndWatch(self._schema, connect=listening, lend=self._own_connection)
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
