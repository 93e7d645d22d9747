"""`client.schedules`: the verbs by which an operator lists and changes recurring items while workers run.

What operators say stands in a table. It wins over what the code of workers says, and survives their deployments, until
it is reset. Schedulers hear of it within a second where notifications reach them, and else with their next read.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, Unpack

from backfill.client.manage import ManageVerbs
from backfill.client.verbs import standing_schedules as verbs
from backfill.client.verbs.asked import Asked
from backfill.client.verbs.schedule_info import info_of
from backfill.records import Job
from backfill.schedules import ScheduleChanges, ScheduleInfo
from backfill.storage.types import Lent

if TYPE_CHECKING:
    from backfill.cron.schedule import Schedule

T = TypeVar("T")

_AT_ONCE: Final = 10
"""How many items are read and computed before other tasks of the event loop have their turn."""


class _Ask(Protocol):
    """What asks the database for a verb: the client's own way."""

    async def __call__(self, ask: Callable[[], Asked[T]], connection: Lent | None, *, harmless: bool = False) -> T: ...


class Schedules:
    """The recurring items of the fleet; `client.schedules` gives this object.

    To list them, an operator's grants are enough, and so are a worker's; to change them takes an operator's grants or
    the owner's role. Schedulers of Node and of the Rust crate heed nothing of what is said here: an item that they have
    in a crontab of their own goes on.

    Args:
        ask: how a verb is asked; the client gives it.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: _Ask) -> None:
        self._ask = ask

    async def get(self, identifier: str, *, connection: Lent | None = None) -> ScheduleInfo:
        """Read how one item stands.

        Args:
            identifier: the item's identifier.
            connection: a connection of yours to read on; if not given, one of the client's.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            InvalidJobError: the identifier cannot be one.
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            info = await client.schedules.get("report")
            print(info.state, info.next_run, info.last_run, info.line)
            ```
        """
        return await self._ask(lambda: verbs.find_one(identifier), connection, harmless=True)

    async def add(
        self, schedule: Schedule | str, *, by: str | None = None, connection: Lent | None = None
    ) -> ScheduleInfo:
        """Add an item, which needs no code that declares it: each worker that schedules adds its jobs.

        Its first run is the first one after this moment. An item of this identifier that was removed comes back.

        Args:
            schedule: the item, or its line of a crontab.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
                Schedulers hear of it once the transaction is committed.

        Returns:
            The item as it stands.

        Raises:
            ScheduleExistsError: there is an item of this identifier, from code or added before.
            CrontabParseError: the line cannot be read.
            InvalidJobError: another value cannot be used; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            from backfill.cron import Schedule

            await client.schedules.add("0 4 * * * report ?tz=Europe/Berlin {to: 'boss'}", by="ann")
            await client.schedules.add(Schedule("sync", "*/5 * * * *", identifier="sync-often"))
            ```
        """
        return await self._ask(lambda: verbs.add(schedule, by), connection)

    async def change(
        self,
        identifier: str,
        to: Schedule | str | None = None,
        *,
        by: str | None = None,
        connection: Lent | None = None,
        **changes: Unpack[ScheduleChanges],
    ) -> ScheduleInfo:
        """Change an item, whether it comes from code or was added; the change wins over code until it is reset.

        Runs before the change are not made up for. A pause of the item stays.

        Args:
            identifier: the item's identifier.
            to: the whole item anew, or its line of a crontab. It has the same identifier, or none of its own.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.
            changes: instead of `to`, the settings that are changed, as keywords of `Schedule`; all others stay as they
                are.

        Returns:
            The item as it stands.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            CrontabParseError: a line, or `when`, cannot be read.
            InvalidJobError: another value cannot be used, or `to` has another identifier; the error names it.
            BackfillError: the item is removed, or this version cannot read the line that is to be changed.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            await client.schedules.change("report", when="30 5 * * *", timezone="Europe/Berlin")
            changed = await client.schedules.change("report", "0 6 * * * report")
            assert changed.line == "0 6 * * * report"
            ```
        """
        return await self._ask(lambda: verbs.change(identifier, to, changes, by), connection)

    async def pause(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo:
        """Pause an item: once this has returned, no job of it is added until it is resumed.

        Jobs that were added before wait and run as ever. A pause that stands already stays as it is.

        Args:
            identifier: the item's identifier.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The item as it stands.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            BackfillError: the item is removed.
            InvalidJobError: a value cannot be used; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            paused = await client.schedules.pause("report", by="ann")
            assert paused.next_run is None
            ```
        """
        return await self._ask(lambda: verbs.pause(identifier, by), connection)

    async def resume(
        self, identifier: str, *, by: str | None = None, connection: Lent | None = None
    ) -> ScheduleInfo | None:
        """End the pause of an item. The runs that it would have had meanwhile are not made up for.

        Args:
            identifier: the item's identifier.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The item as it stands; None if it was not paused.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            BackfillError: the item is removed.
            InvalidJobError: a value cannot be used; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            await client.schedules.pause("report")
            assert await client.schedules.resume("report") is not None
            assert await client.schedules.resume("report") is None    # it was not paused any more
            ```
        """
        return await self._ask(lambda: verbs.resume(identifier, by), connection)

    async def trigger(self, identifier: str, *, connection: Lent | None = None) -> Job:
        """Add a job of an item now, beside those of its runs, even if it is paused or rests.

        The job is as those of the item's runs, with this moment as its time in `_cron`. The item's runs stay as they
        are: the next one is not left out, and `overlap` does not look at this job.

        Args:
            identifier: the item's identifier.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The job's row, without its payload, which operators need not see.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            BackfillError: the item is removed, no scheduler knows it yet, or this version cannot read its line.
            InvalidJobError: the identifier cannot be one.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            job = await client.schedules.trigger("report")
            print(await client.why(job))
            ```
        """
        return await self._ask(lambda: verbs.trigger(identifier), connection)

    async def remove(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo:
        """Remove an item. One that code declares stays removed, whatever is deployed, until it is reset or added again.

        Jobs that were added before wait and run as ever.

        Args:
            identifier: the item's identifier.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The item as it stood, as a removed one. If no code declares it, it is listed no more.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            BackfillError: the item is removed already.
            InvalidJobError: a value cannot be used; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            await client.schedules.add("0 4 * * * report")
            await client.schedules.remove("report", by="ann")
            assert await client.schedules.list() == []
            ```
        """
        return await self._ask(lambda: verbs.remove(identifier, by), connection)

    async def reset(
        self, identifier: str, *, by: str | None = None, connection: Lent | None = None
    ) -> ScheduleInfo | None:
        """Forget all that operators said of an item that code declares: its code counts again, and it is not paused.

        Runs from before this moment are not made up for.

        Args:
            identifier: the item's identifier.
            by: who says it, 1 to 200 characters; the database role if not given.
            connection: a connection of yours to write on, inside its transaction; if not given, one of the client's.

        Returns:
            The item as it stands; None if operators have said nothing of it.

        Raises:
            ScheduleNotFoundError: there is no such item; the error names those that look like it.
            BackfillError: operators added the item, and no code declares it, so that nothing of it would be left.
            InvalidJobError: a value cannot be used; the error names it.
            psycopg.errors.InsufficientPrivilege: the role has neither an operator's grants nor the owner's.

        Example:
            ```python
            for info in await client.schedules.list():
                if info.code_line is not None:
                    await client.schedules.reset(info.identifier)
            ```
        """
        return await self._ask(lambda: verbs.reset(identifier, by), connection)

    async def list(self, *, connection: Lent | None = None) -> builtins.list[ScheduleInfo]:
        """List all items by their identifiers: those that run, and those that are paused, rest or were removed.

        An item that operators added is listed no more once it is removed.

        Args:
            connection: a connection of yours to read on; if not given, one of the client's.

        Returns:
            The items.

        Raises:
            psycopg.errors.InsufficientPrivilege: the role has only a producer's grants.

        Example:
            ```python
            for info in await client.schedules.list():
                print(info.identifier, info.state, info.next_run, info.last_run)
            ```
        """
        found = await self._ask(verbs.find_all, connection, harmless=True)
        infos: builtins.list[ScheduleInfo] = []
        for number, identifier in enumerate(found.identifiers(), 1):
            infos.append(info_of(found, identifier))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return infos


class ScheduleVerbs(ManageVerbs):
    """The property by which a client has the verbs of recurring items."""

    @property
    def schedules(self) -> Schedules:
        """The recurring items of the fleet: to list, add, change, pause, resume, trigger, remove and reset them."""
        return Schedules(self._ask)
