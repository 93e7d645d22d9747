"""Verbs that cancel jobs, whether they wait or run.

Written by tools/sync_verbs.py from `client/cancel.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

from backfill.cancels import CancelCounts, CancelOutcome
from backfill.client.verbs.jobs import JobReference
from backfill.job_filter import JobFilter
from backfill.storage.types import Lent
from backfill.sync.base import Verbs


class CancelVerbs(Verbs):
    """The verbs that cancel jobs."""

    def cancel(self, job: JobReference, *, reason: str | None = None, connection: Lent | None = None) -> CancelOutcome:
        """Cancel a job: delete it if it waits; if it runs, have its worker end it, wherever that worker is.

        When this call returns, the job is deleted or marked. A marked job is not tried again, even if its worker dies.
        The worker cancels an async handler, and asks a synchronous one to end (`ctx.should_stop`), within a second
        where notifications reach it, and else with its next heartbeat. If the handler completes all the same, the job
        is completed. To cancel a job twice does no harm: the first reason counts.

        Args:
            job: its id; a `Job` or an `EnqueueOutcome` will do. With the outcome of a task with `keep=`, the end of a
                job that waited is kept as long as the task says. All other ends of cancelled jobs that no worker ends
                are kept for ten minutes, so that `result` can tell of them.
            reason: why, 1 to 1,000 characters; the handler, the job's end and the error of `result` have it.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's. A
                worker hears of the cancellation once the transaction is committed.

        Returns:
            Whether the job is removed, or its worker is asked to end it, or neither.

        Raises:
            InvalidJobError: `job` is not an id, or the reason is not a text of that length.
        """
        answer: CancelOutcome = self._run(self._verbs.cancel(job, reason=reason, connection=connection))
        return answer

    def cancel_jobs(
        self,
        filter: JobFilter,
        *,
        reason: str | None = None,
        everything: bool = False,
        connection: Lent | None = None,
    ) -> CancelCounts:
        """Cancel the jobs that match a filter, as `cancel` does, at most 500 in each transaction.

        If the call is interrupted, the jobs that were cancelled until then stay cancelled; call it again. Jobs that are
        added during the call may be cancelled too.

        Args:
            filter: which jobs.
            reason: why, 1 to 1,000 characters.
            everything: whether a filter that every job matches is meant as it stands.
            connection: a connection of yours to write on; then all is done in its transaction, which holds the rows of
                all these jobs until it ends. If not given, one of the client's.

        Returns:
            How many jobs were deleted, how many workers are asked to end, and how many workers of other programs hold.

        Raises:
            InvalidJobError: the filter matches every job and `everything` is not set, or a value is out of range.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.
        """
        answer: CancelCounts = self._run(
            self._verbs.cancel_jobs(filter, reason=reason, everything=everything, connection=connection)
        )
        return answer
