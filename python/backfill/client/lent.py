"""The two clients that a worker makes: the one that it lends to handlers, and the one of its services."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from backfill.client import BackfillClient
from backfill.client.upkeep import UpkeepVerbs
from backfill.errors import ClientClosedError

SERVICES_MOST: Final = 2
"""Two, so that a service which holds one for minutes, as to collect queues, keeps no other from recovering jobs."""


class LentClient(BackfillClient):
    """A client that its owner lends to others: their closing it, or leaving `async with`, closes nothing.

    Handlers and the lifespan share it with every other job of the worker, which must not lose it. Its owner ends it
    with `take_back`; then verbs and `open()` raise `ClientClosedError`.
    """

    _taken_back = False

    async def open(self) -> None:
        """Connect and check the schema; harmless where the client is open already.

        Raises:
            ClientClosedError: the worker that lent it has ended.
        """
        if self._taken_back:
            raise ClientClosedError("this client was lent by a worker that has ended; make one of your own")
        await super().open()

    async def close(self) -> None:
        """Do nothing: the worker that lends the client closes it."""

    async def __aenter__(self) -> Self:
        """Open the client, where it is not open."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the worker that lends the client closes it."""

    async def take_back(self) -> None:
        """Close it for good."""
        self._taken_back = True
        await super().close()


class ServicesClient(UpkeepVerbs, BackfillClient):
    """The client of a worker's services. They share one connection at rest, and have a second one while they need it.

    A service that finds the first connection in use waits for it briefly, since most of what services ask is answered
    within milliseconds; then it takes the second one, which is closed soon after nobody needs it any more.
    """

    _patience = 0.5
    _max_idle = 5.0
