"""The two clients that a worker makes: one that it lends to handlers, and one for its services."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from backfill.client import BackfillClient
from backfill.client.schedule_table import ScheduleTable
from backfill.client.scheduling import Scheduling
from backfill.client.upkeep import UpkeepVerbs
from backfill.errors import ClientClosedError
from backfill.hooks.registry import HookRegistry

SERVICES_MOST: Final = 2
"""Two connections, so that a service which uses one for minutes, such as to collect queues, does not stop recovery."""


class LentClient(BackfillClient):
    """A client that its owner lends to others: if they close it or leave `async with`, it stays open.

    Handlers and the lifespan share it with all other jobs of the worker, which must not lose it. Its owner closes it
    with `take_back`; after that, verbs and `open()` raise `ClientClosedError`.
    """

    _taken_back = False

    def use(self, hooks: HookRegistry) -> None:
        """Ask the interceptors of the worker's plugins before a job is added, and trace the call, as these do."""
        self._scheduling, self._tracer = Scheduling.of(hooks), hooks.tracer

    async def open(self) -> None:
        """Connect and check the schema; do nothing if the client is open already.

        Raises:
            ClientClosedError: the worker that lent it has ended.
        """
        if self._taken_back:
            raise ClientClosedError("this client was lent by a worker that has ended; make one of your own")
        await super().open()

    async def close(self) -> None:
        """Do nothing: the worker that lends the client closes it."""

    async def __aenter__(self) -> Self:
        """Open the client, if it is not open."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the worker that lends the client closes it."""

    async def take_back(self) -> None:
        """Close the client for good."""
        self._taken_back = True
        await super().close()


class ServicesClient(UpkeepVerbs, ScheduleTable, BackfillClient):
    """The client of a worker's services, which share one connection, and a second one while they need it.

    A service that finds the first connection in use waits for it briefly, since most statements of services take only
    milliseconds. Then it takes the second connection, which is closed soon after nobody needs it any more.
    """

    _patience = 0.5
    _max_idle = 5.0
