"""Reads the items of a bulk call of a client whose plugins are asked before a job is added.

Used by `verb` in the place of a plain `Reader`. The interceptors of `BeforeJobSchedule` are asked about each item when
it is read. So they are treated as an asynchronous iterable is: while one runs, the call holds nothing that another call
could wait for, not even the client's last connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from backfill.client.bulk.items import Encoder, Reader, Row
from backfill.client.scheduling import Scheduling
from backfill.errors import JobScheduleRefusedError

_END: Final = object()


class InterceptedReader(Reader):
    """Reads the items of one call, and asks interceptors about each of them.

    Args:
        items: the items.
        encoder: makes rows of them.
        scheduling: the interceptors.
        skipped_indexes: the list that receives the positions of the items that are left out; None if nobody asked for
            them.
    """

    def __init__(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        encoder: Encoder,
        scheduling: Scheduling,
        skipped_indexes: list[int] | None,
    ) -> None:
        super().__init__(items, encoder)
        self.skipped_indexes = skipped_indexes
        self._encoder = encoder
        self._scheduling = scheduling

    @property
    def yields(self) -> bool:
        """Whether the caller's code may make other calls between two items: interceptors may."""
        return True

    async def _fill(self, rows: list[Row], most: int) -> bool:
        first = self.count + self.skipped
        for index in range(first, first + most):
            item = await self._next()
            if item is _END:
                return False
            job = self._encoder.job(item)
            answer = await self._scheduling.ask(job, self._encoder.settled)
            if not isinstance(answer, JobScheduleRefusedError):
                rows.append(answer)
            elif answer.skipped:
                if self.skipped_indexes is not None:
                    self.skipped_indexes.append(index)
                self.skipped += 1
            else:
                raise answer
        return True

    async def _next(self) -> Any:
        """Return the next item, or `_END`."""
        if self._items is not None:
            return next(self._items, _END)
        assert self._async_items is not None  # noqa: S101 - the items are of either kind
        return await anext(self._async_items, _END)
