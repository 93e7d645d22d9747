"""Verbs that read how one or many jobs finished, and that wait for a job's result.

Written by tools/sync_verbs.py from `client/ends/verbs.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, TypeVar, overload

from backfill.client.verbs.jobs import JobReference
from backfill.ends import EndFilter, EndList, JobEnd
from backfill.jobs import EnqueueOutcome
from backfill.storage.types import Lent
from backfill.sync.base import Verbs

R = TypeVar("R")
_ANY: Final = EndFilter()


class EndVerbs(Verbs):
    """The verbs for ends: records of how jobs finished, which are kept for tasks with `keep=`."""

    def end(self, job: JobReference, *, connection: Lent | None = None) -> JobEnd | None:
        """Read how a job finished.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The job's end, or None if the job has not finished, or if no end of it is kept (any more).

        Raises:
            InvalidJobError: `job` is not an id.
        """
        answer: JobEnd | None = self._run(self._verbs.end(job, connection=connection))
        return answer

    def ends(
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
        answer: EndList = self._run(self._verbs.ends(filter, limit=limit, cursor=cursor, connection=connection))
        return answer

    @overload
    def result(self, job: EnqueueOutcome[R], *, timeout: float | timedelta | None = None) -> R: ...
    @overload
    def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any: ...
    def result(self, job: JobReference, *, timeout: float | timedelta | None = None) -> Any:
        """Wait for a job to finish and return what its handler returned; the task must keep its ends (`keep=`).

        The call looks for the end again and again, at first after 10 ms and later every half second, and continues to
        wait while the database cannot be reached. It holds no connection between two looks. Ask for the result only
        after the job is committed.

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
        answer: Any = self._run(self._verbs.result(job, timeout=timeout))
        return answer
