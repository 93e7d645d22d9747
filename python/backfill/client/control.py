"""Verbs by which an operator says to the whole fleet what may run, how much of it and how fast.

What is said stands until it is undone, and workers that start later heed it too. Workers hear of it within a second
where notifications reach them, and else with their next heartbeat.
"""

from __future__ import annotations

from backfill.client.connect import ClientLife
from backfill.client.verbs import control as verbs
from backfill.controls import Control
from backfill.limits import Limit, Rate
from backfill.storage.types import Connection


class ControlVerbs(ClientLife):
    """The verbs by which an operator controls the fleet."""

    async def pause(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        everything: bool = False,
        reason: str = "",
        by: str | None = None,
        connection: Connection | None = None,
    ) -> Control:
        """Pause a task, a serial queue or everything: no job of it starts until it is resumed; running jobs go on."""
        return await self._run(verbs.pause(task, queue, everything, reason, by), connection)

    async def resume(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        everything: bool = False,
        connection: Connection | None = None,
    ) -> Control | None:
        """End a pause."""
        return await self._run(verbs.resume(task, queue, everything), connection)

    async def set_concurrency(
        self,
        lane: str,
        concurrency: int,
        *,
        reason: str = "",
        by: str | None = None,
        connection: Connection | None = None,
    ) -> Control:
        """Set how many jobs the lanes of a name run at once, in each worker."""
        return await self._run(verbs.set_concurrency(lane, concurrency, reason, by), connection)

    async def set_limit(
        self,
        task: str,
        limit: Limit | int | None = None,
        rate: Rate | None = None,
        *,
        reason: str = "",
        by: str | None = None,
        connection: Connection | None = None,
    ) -> Control:
        """Set the limit and the rate of a task in the whole fleet."""
        return await self._run(verbs.set_limit(task, limit, rate, reason, by), connection)

    async def controls(self, *, connection: Connection | None = None) -> list[Control]:
        """List what stands said to the fleet, oldest first."""
        return await self._run(verbs.find_controls(), connection)

    async def undo(self, control: Control | int, *, connection: Connection | None = None) -> Control | None:
        """Undo a control."""
        return await self._run(verbs.undo(control), connection)
