"""The calls that wait for their turn, and which of them are written together.

Used by `senders`.
"""

from __future__ import annotations

from asyncio import Future
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backfill.client.prepare import JobShape

if TYPE_CHECKING:
    from backfill.jobs import JobKeyMode
    from backfill.records import Job

MOST_ROWS: Final = 256
"""How many jobs one statement adds at most."""
MOST_BYTES: Final = 1_000_000
"""How many bytes of payloads one statement has at most, unless one payload alone is larger."""
_MOST_LOOKED_AT: Final = 4 * MOST_ROWS


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits.

    Attributes:
        shape: all settings of its job except the payload.
        payload: the payload's JSON.
        tell: whether the workers are to be notified of the job.
        since: when the call began to wait, by the loop's clock.
        answer: receives the job's row; None if the call is to write its job by itself.
    """

    shape: JobShape
    payload: bytes
    tell: bool
    since: float
    answer: Future[Job | None]


class WaitingList:
    """The calls that wait, the first one first."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def __bool__(self) -> bool:
        """Whether any calls wait."""
        return bool(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """Go through the calls that wait, the first one first."""
        return iter(self._waiters)

    @property
    def first(self) -> Waiter:
        """The call that has waited for the longest time."""
        return self._waiters[0]

    def add(self, waiter: Waiter) -> None:
        """Let a call wait."""
        self._waiters.append(waiter)

    def take(self) -> list[Waiter]:
        """Take the calls that go next, in one statement, and leave out those that were cancelled meanwhile.

        No key comes twice among them, and those with keys have one mode: a transaction then takes all its keys in one
        order, which all transactions share. A call never goes before an earlier one with the same key.
        """
        taken: list[Waiter] = []
        left: list[Waiter] = []
        keys: set[str] = set()
        mode: JobKeyMode | None = None
        size = 0
        while self._waiters and len(taken) < MOST_ROWS and len(left) < _MOST_LOOKED_AT:
            waiter = self._waiters.popleft()
            if waiter.answer.done():
                continue
            key = waiter.shape.key
            if key is not None:
                mode = mode or waiter.shape.mode
                if key in keys or waiter.shape.mode is not mode:
                    keys.add(key)
                    left.append(waiter)
                    continue
                keys.add(key)
            size += len(waiter.payload)
            if taken and size > MOST_BYTES:
                left.append(waiter)
                break
            taken.append(waiter)
        self._waiters.extendleft(reversed(left))
        return taken

    def empty(self) -> list[Waiter]:
        """Take all calls that still wait."""
        waiters = [waiter for waiter in self._waiters if not waiter.answer.done()]
        self._waiters.clear()
        return waiters
