"""Verbs by which an operator says to the whole fleet what may run, how much of it and how fast.

What is said stands in a table until it is undone, so workers that start later heed it too. Workers hear of it within a
second where notifications reach them, and else with their next heartbeat.
"""

from __future__ import annotations

from backfill.client.manage import ManageVerbs
from backfill.client.verbs import control as verbs
from backfill.controls import Control
from backfill.limits import Limit, Rate
from backfill.storage.types import Lent


class ControlVerbs(ManageVerbs):
    """The verbs by which an operator controls the fleet.

    They need an operator's grants or the owner's role; to list controls, a worker's grants are enough. Workers of Node,
    of the Rust crate and of older versions of this package do not heed what is said.
    """

    async def pause(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        everything: bool = False,
        reason: str = "",
        by: str | None = None,
        connection: Lent | None = None,
    ) -> Control:
        """Pause a task, a serial queue or everything: no job of it starts until it is resumed.

        Jobs that run already run on. Jobs can be added as before, and wait. To pause what is paused already replaces
        the author and the reason, and gives the pause a new id.

        Args:
            task: the name of the task; a name that is an alias of another means that name only.
            queue: the name of the serial queue, which may be made by this call.
            everything: whether all jobs are paused.
            reason: why, at most 1,000 characters; lists and logs show it.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
                Workers hear of it once the transaction is committed, and others who say something wait for it.

        Returns:
            The pause as it stands.

        Raises:
            InvalidJobError: not exactly one of `task`, `queue` and `everything` is given, or a text cannot be used.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.pause(task="send_email", reason="the provider is down", by="ann")
            assert (await client.controls())[-1].task == "send_email"
            await client.resume(task="send_email")
            ```
        """
        verb = verbs.pause(task, queue, everything, reason, by)
        return await self._ask(lambda: verb, connection)

    async def resume(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        everything: bool = False,
        connection: Lent | None = None,
    ) -> Control | None:
        """End the pause of a task, of a serial queue or of everything.

        Each pause is ended by itself: to resume everything leaves a task paused that was paused by its name. To resume
        a task also closes its circuit breaker, where that is open.

        Args:
            task: the name of the task, as it was given to `pause`.
            queue: the name of the serial queue.
            everything: whether the pause of everything is meant.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The pause that has ended, or else the breaker that was closed; None if there was neither.

        Raises:
            InvalidJobError: not exactly one of `task`, `queue` and `everything` is given, or a text cannot be used.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.pause(queue="user:42")
            ended = await client.resume(queue="user:42")
            assert ended is not None and ended.queue == "user:42"
            assert await client.resume(queue="user:42") is None    # it was not paused any more
            ```
        """
        verb = verbs.resume(task, queue, everything)
        return await self._ask(lambda: verb, connection)

    async def set_concurrency(
        self,
        lane: str,
        concurrency: int,
        *,
        reason: str = "",
        by: str | None = None,
        connection: Lent | None = None,
    ) -> Control:
        """Set how many jobs a lane runs at once, in each worker that has a lane of that name.

        Where the lane has more jobs running, they run on, and no other starts until there is room. `undo` brings back
        what each worker's own settings say.

        Args:
            lane: the lane's name: that of its `QueueConfig`.
            concurrency: how many jobs at once, 1 to 10,000; to run none, pause their tasks.
            reason: why, at most 1,000 characters.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The control as it stands.

        Raises:
            InvalidJobError: a value is out of range; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            fewer = await client.set_concurrency("heavy", 2, reason="the disk is slow today")
            await client.undo(fewer)
            ```
        """
        verb = verbs.set_concurrency(lane, concurrency, reason, by)
        return await self._ask(lambda: verb, connection)

    async def set_limit(
        self,
        task: str,
        limit: Limit | int | None = None,
        rate: Rate | None = None,
        *,
        reason: str = "",
        by: str | None = None,
        connection: Lent | None = None,
    ) -> Control:
        """Set the limit and the rate of a task in the whole fleet; it counts instead of what the task's code says.

        With neither, the task has no limit and no rate, whatever its code says. `undo` brings back what the code says.

        Args:
            task: the name of the task.
            limit: how many jobs of it run at once: a number, or a `Limit`; None for no limit.
            rate: how many jobs of it start in a period; None for no rate.
            reason: why, at most 1,000 characters.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The control as it stands.

        Raises:
            ConfigurationError: a limit or a rate is out of range, or the two name different fields of the payload.
            InvalidJobError: another value is out of range; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            from backfill import Limit, Rate

            await client.set_limit("send_email", 4)
            await client.set_limit("send_email", rate=Rate(100, burst=10), reason="their new terms")
            per_tenant = await client.set_limit("import", Limit(2, by="tenant_id"))
            assert per_tenant.limit == Limit(2, by="tenant_id")
            ```
        """
        verb = verbs.set_limit(task, limit, rate, reason, by)
        return await self._ask(lambda: verb, connection)

    async def controls(self, *, connection: Lent | None = None) -> list[Control]:
        """List all that stands said to the fleet, in the order in which it was said.

        Args:
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The controls. One of a later version may not be `understood`, and has the words of its row.

        Raises:
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.

        Example:
            ```python
            await client.pause(everything=True, reason="the database moves", by="ann")
            for control in await client.controls():
                print(control.id, control.kind, control.subject, control.by, control.reason)
            ```
        """
        return await self._ask(verbs.find_controls, connection, harmless=True)

    async def workers_knowing(self, task: str, *, connection: Lent | None = None) -> int:
        """Count the live workers of this package that know a task by this name, an alias included.

        Where it is none, what is said of the task concerns nobody yet: the name may be misspelt.

        Args:
            task: the name of the task.
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            How many there are, those of other versions included.

        Raises:
            InvalidJobError: the name cannot be a task's.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.

        Example:
            ```python
            assert await client.workers_knowing("send_emial") == 0
            ```
        """
        verb = verbs.count_knowing(task)
        return await self._ask(lambda: verb, connection, harmless=True)

    async def undo(self, control: Control | int, *, connection: Lent | None = None) -> Control | None:
        """Undo one control, whatever it says.

        What somebody has said again of the same subject meanwhile is left: it has another id.

        Args:
            control: a control that a verb gave, or its id.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The control that stood; None if that one does not stand any more.

        Raises:
            InvalidJobError: `control` is neither a `Control` nor an id.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            pause = await client.pause(task="send_email")
            assert await client.undo(pause) == pause
            assert await client.undo(pause) is None
            ```
        """
        verb = verbs.undo(control)
        return await self._ask(lambda: verb, connection)
