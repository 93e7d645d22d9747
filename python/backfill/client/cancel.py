"""Verbs that cancel jobs, whether they wait or run.

A job that waits is deleted. A job that runs is marked by a flag in its row, and its worker is told to look.
"""

from __future__ import annotations

from functools import partial

from backfill.cancels import CancelCounts, CancelOutcome
from backfill.client.manage import ManageVerbs
from backfill.client.verbs import cancel as verbs
from backfill.client.verbs.jobs import JobReference
from backfill.job_filter import JobFilter
from backfill.storage.types import Lent


class CancelVerbs(ManageVerbs):
    """The verbs that cancel jobs."""

    async def cancel(
        self, job: JobReference, *, reason: str | None = None, connection: Lent | None = None
    ) -> CancelOutcome:
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
        verb = verbs.cancel(job, reason)
        return await self._ask(lambda: verb, connection)

    async def cancel_jobs(
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
        verbs.check_filter(filter, reason, everything=everything)
        counts, left = CancelCounts(), filter.limit
        lowest: int | None = verbs.LOWEST
        while lowest is not None and left != 0:
            wanted = verbs.BATCH if left is None else min(verbs.BATCH, left)
            done = await self._ask(partial(verbs.cancel_page, filter, reason, lowest, wanted), connection, many=True)
            counts += done.counts
            lowest = done.lowest
            if left is not None:
                left -= done.counts.removed + done.counts.requested + done.counts.foreign
        return counts
