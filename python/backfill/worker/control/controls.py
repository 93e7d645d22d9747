"""Reads what stands said to the fleet, once in each look, and gives it to all that follow it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from backfill.client.lent import ServicesClient
from backfill.controls import Control
from backfill.worker.control.pauses import said_by

logger = logging.getLogger(__name__)


class Follower(Protocol):
    """Something that a worker does by what stands said."""

    async def follow(self, controls: Sequence[Control]) -> None:
        """Do what is said now, and no longer what is not said any more.

        Args:
            controls: all that stands said and that this version understands, but for the pauses of serial queues.
        """
        ...


class Controls:
    """A duty that reads the controls for others, since each of them would read the same.

    The pauses of serial queues are not among them: there may be thousands, and a duty of its own reads them.

    Args:
        client: the services' client.
        followers: what follows the controls, in this order.

    Attributes:
        unread: the ids of the controls that this version cannot read, each of which was logged.
    """

    name = "controls"
    before_claims = True

    def __init__(self, client: ServicesClient, followers: Sequence[Follower]) -> None:
        self._client = client
        self._followers = tuple(followers)
        self.unread = frozenset[int]()

    async def look(self, *, news: bool) -> None:
        """Read what is said, and have it followed."""
        if not news:
            return
        controls = await self._client.find_worker_controls()
        self._warn([control for control in controls if not control.understood])
        understood = [control for control in controls if control.understood]
        for follower in self._followers:
            await follower.follow(understood)

    def _warn(self, controls: Sequence[Control]) -> None:
        for control in controls:
            if control.id not in self.unread:
                logger.warning(
                    "control %d (%s of %s, said by %s) cannot be read by this version, and is left out",
                    control.id, control.kind, control.subject, said_by(control),
                )  # fmt: skip
        self.unread = frozenset(control.id for control in controls)
