"""Finds which of the jobs that this worker holds were cancelled, and ends them."""

from __future__ import annotations

from backfill.client.lent import ServicesClient
from backfill.worker.execution.cancelling import FOREVER, Cancelling


class CancelledJobs:
    """Looks at the flags of the held jobs.

    Args:
        client: the services' client.
        worker: this worker's id.
        cancelling: ends the jobs.
    """

    name = "cancelled jobs"
    before_claims = False

    def __init__(self, client: ServicesClient, *, worker: str, cancelling: Cancelling) -> None:
        self._client = client
        self._worker = worker
        self._cancelling = cancelling

    async def look(self, *, news: bool) -> None:
        """Find the held jobs that were cancelled, and end them.

        The look is made even if no job is held, since one may be on its way whose claim is committed already.

        Args:
            news: whether jobs may have been cancelled since the last look. If not, the look is for jobs that were on
                their way then; others that come meanwhile were claimed after the last cancellation that is known of.
        """
        if news:
            self._cancelling.looked_at = FOREVER  # what comes during this look is looked for again
        found = await self._client.find_cancelled(self._worker, self._cancelling.candidates)
        if news:
            self._cancelling.looked_at = found.looked_at
        for number, cancellation in found.jobs.items():
            self._cancelling.cancel(number, cancellation)
