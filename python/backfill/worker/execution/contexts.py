"""Makes the contexts that handlers get: what they can ask of their worker and of their own attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backfill.client import BackfillClient
from backfill.worker.context import WorkerContext
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.progress import ProgressBook

if TYPE_CHECKING:
    from backfill.worker.execution.transaction_blocks import TransactionBlocks


class Contexts:
    """Makes the context of each attempt whose handler asks for one.

    Args:
        worker_id: the worker's id.
        client: the client for handlers.
        deps: what the registry's lifespan yielded.
        progress: takes what handlers say about their progress.
    """

    def __init__(self, *, worker_id: str, client: BackfillClient, deps: Any, progress: ProgressBook) -> None:
        self._worker_id = worker_id
        self._client = client
        self._deps = deps
        self.transactions: TransactionBlocks | None = None
        """Opens the transactions in which handlers complete their jobs."""
        self._progress = progress

    def make(self, running: HeldJob) -> WorkerContext[Any]:
        """The context for one attempt."""
        return WorkerContext(
            job=running.job,
            worker_id=self._worker_id,
            deps=self._deps,
            client=self._client,
            stop=running,
            worker_stops=lambda: running.worker_stops,
            transactions=self.transactions,
            reports=self._progress,
        )
