"""Calls the observers of a worker's plugins: in order, beside the jobs, and never in their way.

Whoever tells of an event only puts it into a backlog. The event loop takes events out of it, a few milliseconds at a
time, and calls the observers outside of any task, so that one of them can neither hold up a pump nor cancel it. What an
async observer returns is awaited in a task of its own. A slow one gets `MOST_AT_ONCE` calls at once; further events
wait for it, up to `MOST_WAITING` events and `MOST_BYTES`, and those beyond are dropped, counted and warned of. Each
observer has a backlog of its own, so that a slow one costs the others nothing. Events of workers are few, and none of
them is dropped before the worker ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from backfill.hooks.events import OBSERVED, JobFail, JobPermanentlyFail, ObservedEvent
from backfill.hooks.failures import HookTally
from backfill.hooks.registry import HookRegistry
from backfill.logs import CURRENT
from backfill.storage.until import end_all
from backfill.worker.execution.interrupts import ctrl_c_in

MOST_AT_ONCE: Final = 100
"""How many calls of one async observer are under way at once."""
MOST_WAITING: Final = 10_000
"""How many events wait to be told, and how many wait for one slow observer."""
MOST_BYTES: Final = 32 * 2**20
"""How many bytes of payloads and errors the events hold that wait to be told, or for one slow observer."""
GRACE: Final = 5.0
"""Seconds that observers have at most to end once a worker has settled all its attempts."""
LEAST_GRACE: Final = 1.0
"""Seconds that they have even where the shutdown's deadline is over."""
_CUT_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.004
_TURN_LOOK: Final = 16
_WITH_ERROR: Final = (JobFail, JobPermanentlyFail)
_FULL: Final = f"{MOST_WAITING:,} events or {MOST_BYTES // 2**20} MiB wait already"
_STOPPED: Final = "the worker stops"


class Observers:
    """The observers of a worker, and the events that they have not heard of yet.

    Args:
        hooks: the callbacks.
        tally: counts what fails.
        interrupted: called with a KeyboardInterrupt that an observer raised, where it may come from a Ctrl-C.
    """

    def __init__(self, hooks: HookRegistry, tally: HookTally, interrupted: Callable[[KeyboardInterrupt], None]) -> None:
        self._tally = tally
        self._interrupted = interrupted
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._context.run(CURRENT.set, None)
        self._callbacks: dict[type[ObservedEvent], list[_Observer]] = {
            event: [_Observer(callback, self) for callback in callbacks]
            for event in OBSERVED
            if (callbacks := hooks.callbacks(event))
        }
        self._backlog: deque[tuple[ObservedEvent, int]] = deque()
        self._scheduled = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.busy = 0
        """How many calls are under way or wait for an observer."""
        self.held = 0
        """How many bytes of payloads and errors the events hold that are not told yet."""

    def hear(self, *events: type[ObservedEvent]) -> bool:
        """Whether anybody observes one of these events."""
        return any(event in self._callbacks for event in events)

    def tell(self, event: ObservedEvent) -> None:
        """Tell of an event. It returns at once, and the observers are called soon, in the order of the events."""
        callbacks = self._callbacks.get(type(event))
        if callbacks is None:
            return
        if self._closed:
            self.drop(event, callbacks, _STOPPED)
            return
        weight = weigh(event)
        if weight and (len(self._backlog) >= MOST_WAITING or self.held + weight > MOST_BYTES):
            self.drop(event, callbacks, _FULL)
            return
        self.held += weight
        self._backlog.append((event, weight))
        if not self._scheduled:
            self._schedule()

    def drop(self, event: ObservedEvent, observers: list[_Observer], why: str) -> None:
        """Count an event that these observers never hear of."""
        for observer in observers:
            self._tally.dropped(type(event), observer.callback, why)

    def failed(self, event: ObservedEvent, callback: object, error: BaseException) -> None:
        """Count a call that raised. A Ctrl-C that broke into it is the worker's."""
        if (found := ctrl_c_in(error)) is not None:
            self._interrupted(found)
        self._tally.failed(type(event), callback, error)

    async def close(self, timeout: float, hurry: asyncio.Event) -> None:
        """Wait until all observers have heard of all events, at most `timeout` seconds; then cut off those that run.

        Args:
            timeout: how many seconds to wait; 0 or less means the least grace.
            hurry: once it is set, they have the least grace only.
        """
        if not self._closed and self._callbacks:
            await self._wait(timeout, hurry)
        self._closed = True
        await self._cut_off()

    async def _wait(self, timeout: float, hurry: asyncio.Event) -> None:
        until = time.monotonic() + min(max(timeout, LEAST_GRACE), GRACE)
        quiet, hurried = asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait([quiet, hurried], timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            left = min(until - time.monotonic(), LEAST_GRACE)
            if not quiet.done() and left > 0:
                await asyncio.wait([quiet], timeout=left)
        finally:
            await end_all(quiet, hurried)

    async def _cut_off(self) -> None:
        """Drop what is not told yet, and cancel the calls that are under way; each gets a second to clean up."""
        while self._backlog:
            event, _ = self._backlog.popleft()
            self.drop(event, self._callbacks[type(event)], _STOPPED)
        running = dict[asyncio.Task[None], _Observer]()
        for observers in self._callbacks.values():
            for observer in observers:
                for event in observer.waiting:
                    self.drop(event, [observer], _STOPPED)
                observer.waiting.clear()
                running |= dict.fromkeys(observer.running, observer)
        for task in running:
            task.cancel()
        if running:
            _, clinging = await asyncio.wait(running, timeout=_CUT_SECONDS)
            for task in clinging:
                self._tally.clings(running[task].callback)

    def _quiet(self) -> bool:
        return not self._backlog and not self.busy

    def settle(self) -> None:
        """Take note that a call has ended."""
        if self._quiet():
            self._idle.set()

    def _schedule(self) -> None:
        self._scheduled = True
        self._idle.clear()
        self._loop.call_soon(self._turn, context=self._context)

    def call(self, observer: _Observer, event: ObservedEvent) -> None:
        """Call an observer."""
        try:
            answer = observer.callback(event)
            if answer is not None:
                observer.begin(answer, event)
        except BaseException as error:  # noqa: BLE001 - whatever an observer raises, the worker goes on
            self.failed(event, observer.callback, error)

    def _turn(self) -> None:
        """Call the observers of the events in the backlog, for a few milliseconds at most."""
        began, count, backlog = time.monotonic(), 0, self._backlog
        while backlog:
            event, weight = backlog.popleft()
            self.held -= weight
            for observer in self._callbacks[type(event)]:
                if len(observer.running) < MOST_AT_ONCE:
                    self.call(observer, event)
                else:
                    observer.put_off(event)
            count += 1
            if count % _TURN_LOOK == 0 and time.monotonic() - began > _TURN_SECONDS:
                break
        if backlog:
            self._schedule()
            return
        self._scheduled = False
        self.settle()

    def make_task(self, work: Awaitable[Any], observer: _Observer, event: ObservedEvent) -> asyncio.Task[None]:
        """Await what an async observer returned in a task of its own."""
        return self._loop.create_task(observer.finish(work, event), context=self._context.copy())

    @property
    def is_closed(self) -> bool:
        """Whether nobody is called any more."""
        return self._closed

    def cut(self, event: ObservedEvent, callback: object) -> None:
        """Count a call that the end of the worker has cut off."""
        self._tally.dropped(type(event), callback, _STOPPED)


class _Observer:
    """One callback of one event, with its calls under way and the events that wait for it."""

    __slots__ = ("_all", "callback", "held", "running", "waiting")

    def __init__(self, callback: Callable[[Any], Any], all_of_them: Observers) -> None:
        self.callback = callback
        self._all = all_of_them
        self.running = set[asyncio.Task[None]]()
        self.waiting = deque[ObservedEvent]()
        self.held = 0

    def put_off(self, event: ObservedEvent) -> None:
        """Have an event wait, since too many of its calls are under way."""
        weight = weigh(event)
        if weight and (len(self.waiting) >= MOST_WAITING or self.held + weight > MOST_BYTES):
            self._all.drop(event, [self], _FULL)
            return
        self.held += weight
        self._all.busy += 1
        self.waiting.append(event)

    def begin(self, answer: Any, event: ObservedEvent) -> None:
        """Await what it has returned, if that can be awaited, in a task of its own."""
        if not inspect.isawaitable(answer):
            return
        task = self._all.make_task(answer, self, event)
        self._all.busy += 1
        self.running.add(task)
        task.add_done_callback(self._ended)

    async def finish(self, work: Awaitable[Any], event: ObservedEvent) -> None:
        """Await a call."""
        try:
            await work
        except BaseException as error:  # noqa: BLE001 - whatever an observer raises, the worker goes on
            if self._all.is_closed and isinstance(error, asyncio.CancelledError):
                self._all.cut(event, self.callback)
            else:
                self._all.failed(event, self.callback, error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._all.busy -= 1
        while self.waiting and len(self.running) < MOST_AT_ONCE:
            event = self.waiting.popleft()
            self.held -= weigh(event)
            self._all.busy -= 1
            self._all.call(self, event)
        self._all.settle()


def weigh(event: Any) -> int:
    """How many bytes of payload and error an event of a job holds, roughly, and at least 1; 0 for all other events."""
    try:
        weight = len(event.job.payload_bytes) or 1
    except AttributeError:
        return 0
    return weight + len(event.error) if isinstance(event, _WITH_ERROR) else weight
