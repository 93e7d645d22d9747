"""The child processes in which a worker's handlers run, as the worker's row names them.

Others recover a dead worker's jobs at once only when these processes are gone too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backfill.client.lent import ServicesClient
from backfill.errors import BackfillError
from backfill.worker.liveness.places import Place, Process


class Children:
    """Keeps the list of children in the worker's row.

    Args:
        client: the services' client.
        worker: returns the id of the worker's current session.

    Attributes:
        now: the children that were told last; the row of a new session names them from its start.
    """

    def __init__(self, client: ServicesClient, worker: Callable[[], str]) -> None:
        self._client = client
        self._worker = worker
        self.now: tuple[Process, ...] = ()

    async def write(self, children: Sequence[Process]) -> None:
        """Have the worker's row name these children, and no others.

        It is awaited before a new child gets its first job. A child that has ended may stay in the row until the next
        call.

        Args:
            children: all children that may run handlers, each as its pid and its start time in clock ticks
                (`backfill.worker.liveness.places.start_of`).

        Raises:
            BackfillError: the worker was given up, so that its row must not change any more; the child must not get a
                job then.
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: the server refused.
        """
        self.now = tuple(children)
        worker = self._worker()
        place = Place.here(self.now)
        if not await self._client.show_place(worker, None if place is None else place.to_json()):
            raise BackfillError(
                f"worker {worker} was given up by another worker, so that its new child processes cannot begin a job; "
                "the job runs in another worker, or in this one under its new id"
            )
