"""Which express tasks are proven in this process: enough attempts have ended, and nearly all of them were short.

An attempt whose worker dies in a window is not counted, so a job that kills its process would be run again and again.
Therefore a process runs a task the ordinary way, which counts each attempt, until the task has shown what it does. A
task whose attempts outlive their windows loses its proof, since each of them costs more in a window than without one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

from backfill.storage.attempts import Attempt
from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)

NEEDED: Final = 300
"""How many attempts of a task have to end the ordinary way before it is proven."""
LOOKED_AT: Final = 500
"""How many of a task's last attempts count."""
MOST_SLOW: Final = 0.01
"""Which part of them may be slow."""
_TOLD_EVERY: Final = 3600.0
_MOST_BLOCKED: Final = 16


class Proofs:
    """Which express tasks are proven; a listener of settled attempts.

    Args:
        tasks: the names of the express tasks and their aliases; each name has to be proven by itself.
        window: how long a window is open, in seconds. An attempt whose handler took longer is slow, and so is one whose
            handler held the event loop. Those that merely began late, behind such a one, are not.
        changed: called with the proven names, each time that these change.

    Attributes:
        proven: the names that are proven now. Any thread may read it.
    """

    def __init__(self, tasks: frozenset[str], *, window: float, changed: Callable[[frozenset[str]], None]) -> None:
        self.proven: frozenset[str] = frozenset()
        self._books = {name: _Book(name, window) for name in tasks}
        self._window = window
        self._changed = changed
        self._blocked: deque[HeldJob] = deque(maxlen=_MOST_BLOCKED)

    @property
    def in_vain(self) -> bool:
        """Whether each task that has run is known to be too long: looking on would hardly bring a proof soon."""
        seen = [book for book in self._books.values() if book.seen]
        return bool(seen) and all(not book.proven and book.seen >= LOOKED_AT for book in seen)

    def begin_anew(self) -> None:
        """Forget all attempts; it is called where no task is proven."""
        for book in self._books.values():
            book.begin_anew()

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:  # noqa: ARG002 - they ran too
        """Take note of attempts that have ended, in a window or otherwise.

        Args:
            batch: the attempts. Those whose handlers never began are passed over.
            missing: those of them that were not this worker's any more, which count as the others do.
        """
        books, window, turned = self._books, self._window, False
        blocked = frozenset(self._blocked) if self._blocked else ()
        for running in batch:
            book = books.get(running.job.task_identifier)
            began = running.began
            if book is None or not began:
                continue
            slow = running.ended - began > window or running in blocked
            if book.proven and not slow:
                book.seen += 1  # the shortest way for nearly all attempts
            elif book.proven or running.claim.in_row:
                turned |= book.note(running.ended, slow=slow)
        if blocked:
            self._forget(frozenset(batch))
        if turned:
            proven = frozenset(name for name, book in books.items() if book.proven)
            if proven != self.proven:
                self.proven = proven
                self._changed(proven)

    def blocked(self, running: HeldJob) -> None:
        """Take note that the handler of an attempt holds the event loop; any thread may call this.

        It counts when the attempt has ended.

        Args:
            running: the attempt.
        """
        if running.job.task_identifier in self._books:
            self._blocked.append(running)

    def _forget(self, settled: Collection[HeldJob]) -> None:
        """Forget which attempts held the loop, but for those whose ends are still to come and may be in time."""
        late = time.monotonic() - self._window
        for _ in range(len(self._blocked)):
            running = self._blocked.popleft()
            if running not in settled and (running.ended or running.began > late):
                self._blocked.append(running)


class _Book:
    """What is known of the attempts of one name since the start, or since its proof was lost.

    Args:
        name: the task's name.
        window: how long a window is open, in seconds; for the log.

    Attributes:
        seen: how many attempts have ended.
        proven: whether the name is proven.
    """

    __slots__ = ("_name", "_slow", "_told", "_window", "proven", "seen")

    def __init__(self, name: str, window: float) -> None:
        self.seen = 0
        self.proven = False
        self._slow: deque[int] = deque()
        """The numbers of the slow attempts among the last `LOOKED_AT`, counted from 1."""
        self._name = name
        self._window = window
        self._told: float | None = None

    def note(self, now: float, *, slow: bool) -> bool:
        """Take note of an attempt; return whether the name has gained or lost its proof by that.

        Args:
            now: when the attempt ended, in monotonic seconds.
            slow: whether it was slow.
        """
        self.seen += 1
        if slow:
            self._slow.append(self.seen)
        while self._slow and self._slow[0] <= self.seen - LOOKED_AT:
            self._slow.popleft()
        if self.proven:
            return self._lose(now) if len(self._slow) > MOST_SLOW * LOOKED_AT else False
        if self.seen < NEEDED or len(self._slow) > MOST_SLOW * min(self.seen, LOOKED_AT):
            return False
        self.proven = True
        logger.debug("task %r is proven: its jobs may run in windows now", self._name)
        return True

    def _lose(self, now: float) -> bool:
        """Begin anew; none of the attempts so far counts any more."""
        if self._told is None or now - self._told >= _TOLD_EVERY:
            self._told = now
            logger.info(
                "task %r runs the ordinary way until %d more of its attempts have ended: %d of its last %d attempts "
                "were longer than a window of %g ms or held the event loop. Such jobs cost more in windows than "
                "without; take express=True from the task, or give the worker a longer express_window "
                "(--express-window)",
                self._name, NEEDED, len(self._slow), min(self.seen, LOOKED_AT), self._window * 1000,
            )  # fmt: skip
        self.begin_anew()
        return True

    def begin_anew(self) -> None:
        """Forget all attempts."""
        self.proven, self.seen = False, 0
        self._slow.clear()
