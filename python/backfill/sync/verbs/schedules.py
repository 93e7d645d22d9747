"""`client.schedules`: the verbs by which an operator lists and changes recurring items while workers run.

Written by tools/sync_verbs.py from `client/schedules.py`: change the asynchronous verb, and run it again.
"""

from __future__ import annotations

import builtins
from typing import Unpack

from backfill.cron.schedule import Schedule
from backfill.records import Job
from backfill.schedules import ScheduleChanges, ScheduleInfo
from backfill.storage.types import Lent
from backfill.sync.base import Group


class Schedules(Group):
    """The recurring items of the fleet; `client.schedules` gives this object.

    To list them, an operator's grants are enough, and so are a worker's; to change them takes an operator's grants or
    the owner's role. Schedulers of Node and of the Rust crate heed nothing of what is said here: an item that they have
    in a crontab of their own goes on.
    """

    __slots__ = ()

    def get(self, identifier: str, *, connection: Lent | None = None) -> ScheduleInfo:
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
            client.schedules.add("0 4 * * * report")
            info = client.schedules.get("report")
            print(info.state, info.next_run, info.last_run, info.line)
            ```
        """
        answer: ScheduleInfo = self._run(self._verbs.get(identifier, connection=connection))
        return answer

    def add(self, schedule: Schedule | str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo:
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

            client.schedules.add("0 4 * * * report ?tz=Europe/Berlin {to: 'boss'}", by="ann")
            client.schedules.add(Schedule("sync", "*/5 * * * *", identifier="sync-often"))
            ```
        """
        answer: ScheduleInfo = self._run(self._verbs.add(schedule, by=by, connection=connection))
        return answer

    def change(
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
            client.schedules.add("0 4 * * * report")
            client.schedules.change("report", when="30 5 * * *", timezone="Europe/Berlin")
            changed = client.schedules.change("report", "0 6 * * * report")
            assert changed.line == "0 6 * * * report"
            ```
        """
        answer: ScheduleInfo = self._run(self._verbs.change(identifier, to, by=by, connection=connection, **changes))
        return answer

    def pause(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo:
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
            client.schedules.add("0 4 * * * report")
            paused = client.schedules.pause("report", by="ann")
            assert paused.next_run is None
            ```
        """
        answer: ScheduleInfo = self._run(self._verbs.pause(identifier, by=by, connection=connection))
        return answer

    def resume(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo | None:
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
            client.schedules.add("0 4 * * * report")
            client.schedules.pause("report")
            assert client.schedules.resume("report") is not None
            assert client.schedules.resume("report") is None    # it was not paused any more
            ```
        """
        answer: ScheduleInfo | None = self._run(self._verbs.resume(identifier, by=by, connection=connection))
        return answer

    def trigger(self, identifier: str, *, connection: Lent | None = None) -> Job:
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
            client.schedules.add("0 4 * * * report")
            job = client.schedules.trigger("report")
            print(client.why(job))
            ```
        """
        answer: Job = self._run(self._verbs.trigger(identifier, connection=connection))
        return answer

    def remove(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo:
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
            client.schedules.add("0 4 * * * report")
            client.schedules.remove("report", by="ann")
            assert client.schedules.list() == []
            ```
        """
        answer: ScheduleInfo = self._run(self._verbs.remove(identifier, by=by, connection=connection))
        return answer

    def reset(self, identifier: str, *, by: str | None = None, connection: Lent | None = None) -> ScheduleInfo | None:
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
            for info in client.schedules.list():
                if info.code_line is not None:
                    client.schedules.reset(info.identifier)
            ```
        """
        answer: ScheduleInfo | None = self._run(self._verbs.reset(identifier, by=by, connection=connection))
        return answer

    def list(self, *, connection: Lent | None = None) -> builtins.list[ScheduleInfo]:
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
            for info in client.schedules.list():
                print(info.identifier, info.state, info.next_run, info.last_run)
            ```
        """
        answer: builtins.list[ScheduleInfo] = self._run(self._verbs.list(connection=connection))
        return answer
