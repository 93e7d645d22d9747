"""Starts ready jobs: one asyncio task runs their attempts one after the other, as long as none of them waits.

A task of its own for each attempt would cost more than all else that the worker does for a short job. So a task is kept
by the first attempt that waits for something, and the next attempts get another task. For a handler there is no
difference: it runs in a task that no other attempt uses at that time, and in a context of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane

if TYPE_CHECKING:
    from backfill.worker.execution.wiring import Wiring

_TURN_SECONDS: Final = 0.004
_TURN_LOOK: Final = 16
_MOST_TASKS: Final = 64
"""In how many tasks at most the jobs of a lane are started at once."""


class _Round:
    """The tasks that start the jobs of one lane in one turn of the loop.

    Where attempts wait, each takes a task, so that the next round has twice as many tasks as were taken in this one.

    Attributes:
        left: how many of the tasks have not had their turn.
        taken: how many were taken by attempts that wait.
        until: until when they may start jobs, in monotonic seconds, so that others can use the loop; 0.0 at first.
    """

    __slots__ = ("left", "taken", "until")

    def __init__(self) -> None:
        self.left = self.taken = 0
        self.until = 0.0


class Starter:
    """Starts the ready jobs of lanes. Make it on the worker's loop.

    Args:
        wiring: says whether the worker may start jobs, and is told where a lane should be filled up.
        attempt: makes the coroutine that is an attempt; it raises nothing.
        undo: called with a job that may not start any more.
        guard: tells whether this process was forked from the worker's.

    Attributes:
        context: what the context of each attempt is a copy of.
        first_step: the attempt that runs now and has not waited for anything yet; its task is not known to anybody.
        waiting: the attempts that have begun, and wait for something or did so.
        started: how many jobs were started.
        stopped: whether no more jobs start, since the worker stops.
    """

    def __init__(
        self,
        wiring: Wiring,
        *,
        attempt: Callable[[HeldJob], Coroutine[Any, Any, None]],
        undo: Callable[[HeldJob], None],
        guard: ForkGuard,
    ) -> None:
        self._wiring = wiring
        self._attempt = attempt
        self._undo = undo
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self._rounds: dict[Lane, _Round] = {}
        self.first_step: HeldJob | None = None
        self.waiting: set[HeldJob] = set()
        self.started = 0
        self.stopped = False

    def dispatch(self, lane: Lane) -> None:
        """Have ready jobs started while slots are free; where none can be, ask for more if the lane runs dry."""
        if (turn := self._rounds.get(lane)) is None:
            turn = self._rounds[lane] = _Round()
        if turn.left or self.stopped:
            return
        if lane.free > 0 and lane.ready and not lane.holding:
            # The lease may come back just now. Then all lanes are told to go on, and this one has a round already.
            if self._wiring.is_leased(now := time.monotonic()) and not turn.left:
                lane.started_at = now
                turn.left = min(max(2 * turn.taken, 1), _MOST_TASKS, lane.free, len(lane.ready))
                turn.taken, turn.until = 0, 0.0
                for _ in range(turn.left):
                    # Not the loop's own way: a factory that starts tasks eagerly would start each within another.
                    asyncio.Task(_Run(self, lane, turn), loop=self._loop)
        elif lane.hungry and len(lane.ready) <= lane.refill and lane.low:
            self._wiring.thirsty()

    def start(self, lane: Lane, turn: _Round) -> _Rest | None:
        """Start jobs in the current task; return the rest of the first attempt that waits for something, or None."""
        try:
            return self._start(lane, turn)
        finally:
            turn.left -= 1
            if not turn.left:
                self.dispatch(lane)

    def skip(self, lane: Lane, turn: _Round) -> None:
        """Go on without a task that was cancelled before its turn, as by a handler that cancels all tasks there are."""
        turn.left -= 1
        if not turn.left and not self._wiring.worker_cancelled():
            self.dispatch(lane)

    def _start(self, lane: Lane, turn: _Round) -> _Rest | None:
        now = time.monotonic()
        if not self._wiring.is_leased(now):
            return None  # the process was paused, or its heartbeats do not get through: others may run what it holds
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - this runs in one
        turn.until = turn.until or now + _TURN_SECONDS
        ready, count = lane.ready, 0
        while now < turn.until and lane.free > 0 and ready and not lane.holding:
            running = ready.popleft()
            window = running.window
            if window is not None and time.monotonic() > window.fresh_until and not window.may_start():
                self._undo(running)
                continue
            lane.free -= 1
            self.started += 1
            running.slot_taken_at = now
            if (rest := self._step(running)) is not None:
                running.task = task
                turn.taken += 1
                return rest
            if task.cancelling():  # the handler has cancelled its own task, and has ended nevertheless
                return None
            count += 1
            if count % _TURN_LOOK == 0:
                now = time.monotonic()
        return None

    def _step(self, running: HeldJob) -> _Rest | None:
        """Run an attempt to its end, or until it waits for something; return the rest of it then.

        Its context is one that no other job's handler has touched.
        """
        context, attempt = self.context.copy(), self._attempt(running)
        self.first_step = running
        try:
            awaited = context.run(attempt.send, None)
        except StopIteration:
            return None
        finally:
            self.first_step = None
        if self._guard.forked:  # the handler forked in its first step, and this child has awaited something
            self._guard.come_back()
        self.waiting.add(running)
        return _Rest(context, attempt, awaited)


@dataclass(slots=True)
class _Rest:
    """What is left of an attempt that has begun and waits.

    Attributes:
        context: its context.
        attempt: its coroutine.
        awaited: what it waits for now.
    """

    context: contextvars.Context
    attempt: Coroutine[Any, Any, None]
    awaited: Any


class _Run(Coroutine[Any, Any, None]):
    """What an asyncio task of the starter runs: its first step starts jobs, the others are those of the one that waits.

    It is no async function: what a task raises into one goes through a frame more, and that of a GeneratorExit is lost.
    """

    __slots__ = ("_lane", "_rest", "_starter", "_turn")
    __name__ = "Executor._attempt"  # what asyncio shows of the task

    def __init__(self, starter: Starter, lane: Lane, turn: _Round) -> None:
        self._starter = starter
        self._lane = lane
        self._turn = turn
        self._rest: _Rest | None = None

    def send(self, value: Any) -> Any:
        """Take a step."""
        rest = self._rest
        if rest is not None:
            return rest.context.run(rest.attempt.send, value)
        self._rest = rest = self._starter.start(self._lane, self._turn)
        if rest is None:
            raise StopIteration
        return rest.awaited

    def throw(self, *error: Any) -> Any:
        """Raise an error where the attempt waits; before the first step, nothing has begun."""
        rest = self._rest
        if rest is None:
            self._starter.skip(self._lane, self._turn)
            raise error[0]
        return rest.context.run(rest.attempt.throw, *error)

    def close(self) -> None:
        """End the attempt where it waits."""
        if self._rest is not None:
            self._rest.context.run(self._rest.attempt.close)

    def __await__(self) -> Generator[Any, Any, None]:
        """Refuse: only a task steps through it."""
        raise TypeError("only a task runs it")
