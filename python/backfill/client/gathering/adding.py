"""What a client keeps for its calls that add jobs: those that wait to be written together, and when workers are told.

Used by `connect`, which makes one for each client, and by the verbs that add jobs. What it keeps belongs to one event
loop of one process, and is made anew on another.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from backfill.client.execute import run
from backfill.client.gathering.notices import Notices
from backfill.client.gathering.senders import Senders
from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.client.connect import ClientLife

_SHORTEST: Final = timedelta(milliseconds=1)
_LONGEST: Final = timedelta(hours=1)


class Adding:
    """What a client keeps for its calls that add jobs.

    Args:
        client: the client.
        gather: whether calls that are made while another one is on its way are written together.
        notify_every: the least time between two notifications; None to notify workers with each statement.

    Raises:
        ConfigurationError: an argument cannot be used; the error names it.
    """

    def __init__(self, client: ClientLife, *, gather: object, notify_every: object) -> None:
        if not isinstance(gather, bool):
            raise ConfigurationError(f"gather = {gather!r}: expected True or False")
        self._client = client
        self._gather = gather
        self._seconds = _seconds(notify_every)
        self._senders: Senders | None = None
        self._notices: Notices | None = None

    def senders(self) -> Senders | None:
        """Return what gathers calls on this loop in this process; None if each call is sent alone."""
        if not self._gather:
            return None
        senders = self._senders
        if senders is None or not senders.is_here:
            senders = self._senders = Senders(self._client, self.notices())
        return senders

    def notices(self) -> Notices | None:
        """Return what says when the workers are told of jobs; None if they are told each time."""
        if self._seconds is None:
            return None
        if self._notices is None or not self._notices.is_here:
            self._notices = Notices(self._seconds, self._tell)
        return self._notices

    async def finish(self) -> None:
        """Let the calls that wait be written, and the workers be told of jobs, before the client closes."""
        if self._senders is not None and self._senders.is_here:
            await self._senders.finish()
        if self._notices is not None and self._notices.is_here:
            await self._notices.close()

    def end(self) -> None:
        """Tell the calls that still wait that the client is closed."""
        senders, self._senders, self._notices = self._senders, None, None
        if senders is not None and senders.is_here:
            senders.refuse()

    async def _tell(self, count: int) -> None:
        async with self._client._own_connection() as connection:  # noqa: SLF001 - a class of the same package
            await run(connection, "notify_jobs", self._client.schema, (str(count),))


def _seconds(interval: Any) -> float | None:
    if interval is None:
        return None
    if not isinstance(interval, timedelta) or not _SHORTEST <= interval <= _LONGEST:
        raise ConfigurationError(f"notify_every = {interval!r}: expected a timedelta from 1 ms to 1 hour, or None")
    return interval.total_seconds()
