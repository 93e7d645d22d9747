"""The pool of child processes: starts them when needed, keeps them, gives them calls, and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from backfill.said import why
from backfill.worker.processes.announcer import Announcer
from backfill.worker.processes.calls import Call, OnBegin, OnChildren, OnMessage, Outcome
from backfill.worker.processes.child import Child, UnreadError
from backfill.worker.processes.deaths import ChildDied, ChildNotStarted
from backfill.worker.processes.frames import LARGEST
from backfill.worker.processes.spawner import Spawner

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_TRIES: Final = 3
_HOPELESS: Final = 5
"""So many starts in a row have failed, and nobody else takes calls: those that wait are told so."""


class ChildPool:
    """Child processes that run calls, one at a time each.

    Make it and use it on one event loop. Children are started when a call finds none that is free, up to `size`. Where
    one cannot be started, the call for which it was to be started fails, and the next start waits: a tenth of a second,
    then twice as long each time, up to half a minute. Other calls wait meanwhile. Where five starts in a row have
    failed and no child takes calls, all calls that wait fail, so that their callers can do better than to wait.

    Args:
        size: how many children take calls at most.
        handler: the import path ("package.module:name") of the factory of the `ChildHandler`.
        setup: what the factory is given in each child; it crosses by a pipe, so it may hold secrets.
        max_jobs: after so many calls a child is replaced; None: never.
        max_rss: a child whose memory in bytes is larger after a call is replaced; None: never.
        on_children: awaited before a new child gets its first call.
        terminate_grace: how many seconds a call has to end after `Terminated` was raised in it, before it is killed.
        start_timeout: how many seconds a new child has to become ready.
        exit_timeout: how many seconds a child that is not needed any more has to end by itself.
    """

    def __init__(
        self,
        size: int,
        handler: str,
        setup: bytes = b"",
        *,
        max_jobs: int | None = None,
        max_rss: int | None = None,
        on_children: OnChildren | None = None,
        terminate_grace: float = 2.0,
        start_timeout: float = 60.0,
        exit_timeout: float = 5.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._handler = handler
        self._setup = setup
        self._max_jobs = max_jobs
        self._max_rss = max_rss
        self._terminate_grace = terminate_grace
        self._start_timeout = start_timeout
        self._exit_timeout = exit_timeout
        self._spawner = Spawner()
        self._announcer = None if on_children is None else Announcer(on_children, lambda: self.children)
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._serving: set[Child] = set()
        self._by_call: dict[Call, Child] = {}
        self._waiters: deque[asyncio.Future[Child]] = deque()
        self._births: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._not_before = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._closing = False
        self.by_thread = False
        """Wait for children in threads, as is done where the system has no descriptors of processes."""

    @property
    def children(self) -> Sequence[tuple[int, int]]:
        """(pid, start time) of each child that lives, also of those that are ending."""
        return [(child.pid, child.started) for child in self._children]

    async def run(self, call: Call, on_message: OnMessage, on_begin: OnBegin | None = None) -> Outcome:
        """Run a call in a child that is free, and wait for its outcome.

        Where this is cancelled, `Terminated` is raised in the child's main thread; a child that still runs the call
        `terminate_grace` seconds later is killed with its process group, and at once where this is cancelled again. The
        cancellation is passed on when the call does not run any more. Nobody else's call is touched by that.

        Args:
            call: the call; it may be run once.
            on_message: called with each message of the call.
            on_begin: called when a child has been given the call. It is called again where that child ended before it
                had read the call, so that another child is given it.

        Raises:
            ChildDied: the child ended before the call did.
            ChildNotStarted: no child could be started.
            ChildFailed: the child's own code raised where it should have returned bytes.
            ValueError: the call's data is larger than a gigabyte.
        """
        if len(call.data) > LARGEST:
            raise ValueError(f"{len(call.data)} bytes: a call in a child process may have at most {LARGEST}")
        for _ in range(_TRIES):
            child = self._take_idle() or await self._wait_for_child()
            if self._closing:
                break
            try:
                return await self._run_in(child, call, on_message, on_begin)
            except UnreadError:
                continue
        if self._closing:
            raise ChildNotStarted("the pool of child processes is closed")
        raise ChildDied(f"ended before it had read the call, as {_TRIES - 1} others before it")

    def stop(self, call: Call, reason: str) -> None:
        """Ask a running call to stop: its `should_stop` becomes true, and nothing else happens.

        It does nothing where the call has not begun or has ended.

        Args:
            call: the call.
            reason: its `stop_reason`; what is longer than 1,000 bytes is cut.
        """
        if (child := self._by_call.get(call)) is not None:
            child.stop(reason)

    def resize(self, size: int) -> None:
        """Let at most so many children take calls from now on; idle ones beyond that end, others after their calls."""
        self._size = size
        while self._idle and len(self._serving) > size:
            self._retire(self._idle.pop(0))
        self._grow()

    async def close(self, timeout: float = 10.0) -> None:
        """End all children. Calls that still run are ended as if they were cancelled, and fail with `ChildDied`.

        Idle children may end by themselves; what is left after half of the time is killed.

        Args:
            timeout: how many seconds this may take.
        """
        self._closing = True
        if self._again is not None:
            self._again.cancel()
        while self._waiters:
            _refuse(self._waiters.popleft(), ChildNotStarted("the pool of child processes is closed"))
        for child in list(self._children):
            if child.in_call:
                child.terminate(timeout / 2)
            elif not child.ready.done():
                child.kill("was not needed any more")
            else:
                child.end(timeout / 2)
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout):
                if self._announcer is not None:
                    await self._announcer.close()
                while self._births or self._children:
                    left: list[asyncio.Future[Any]] = [*self._births, *(child.gone for child in self._children)]
                    await asyncio.wait(left)
        except TimeoutError:
            pids = ", ".join(str(child.pid) for child in self._children)
            logger.error("child processes that do not end although they were killed: %s", pids or "none has begun")
        self._spawner.close()

    async def _run_in(self, child: Child, call: Call, on_message: OnMessage, on_begin: OnBegin | None) -> Outcome:
        future = child.begin(call, on_message)
        self._by_call[call] = child
        try:
            if on_begin is not None:
                on_begin()
            return await future
        except BaseException:
            if child.in_call:
                future.cancel()
                await self._end_call(child)
            raise
        finally:
            del self._by_call[call]
            self._came_back(child, future)

    async def _end_call(self, child: Child) -> None:
        """Wait until a call that was cancelled does not run any more; another cancellation kills the child at once."""
        released = child.released = self._loop.create_future()
        child.terminate(self._terminate_grace)
        while not released.done():
            try:
                await asyncio.wait([released])
            except asyncio.CancelledError:
                child.kill()

    def _take_idle(self) -> Child | None:
        while self._idle:
            if (child := self._idle.pop()).usable:
                return child
        return None

    def _came_back(self, child: Child, future: asyncio.Future[Outcome]) -> None:
        """A child's call has ended: it is free, or it is not used any more."""
        if child.gone.done():
            return
        rss = future.result().rss if not future.cancelled() and future.exception() is None else None
        full = self._max_rss is not None and rss is not None and rss > self._max_rss
        worn = self._max_jobs is not None and child.jobs >= self._max_jobs
        if not child.usable or full or worn or len(self._serving) > self._size:
            self._retire(child)
        else:
            self._free(child)

    def _free(self, child: Child) -> None:
        if child.gone.done() or self._closing:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._idle.append(child)

    def _retire(self, child: Child) -> None:
        """Let a child that runs no call end, and have another one started where a call waits."""
        self._serving.discard(child)
        child.end(self._exit_timeout)
        self._grow()

    def _gone(self, child: Child) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
            if not child.ending:
                logger.warning("child process %d, which ran no call, %s", child.pid, child.gone.result())
        self._serving.discard(child)
        self._grow()

    async def _wait_for_child(self) -> Child:
        if self._closing:
            raise ChildNotStarted("the pool of child processes is closed")
        waiter: asyncio.Future[Child] = self._loop.create_future()
        self._waiters.append(waiter)
        self._grow()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._free(waiter.result())
            else:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            raise

    def _grow(self) -> None:
        """Start as many children as calls wait for one, and as there may be; while that fails, one at a time."""
        if self._closing:
            return
        while len(self._births) < len(self._waiters) and len(self._serving) + len(self._births) < self._size:
            if self._failures:
                if self._births:
                    return
                if (pause := self._not_before - self._loop.time()) > 0:
                    if self._again is None or self._again.cancelled():
                        self._again = self._loop.call_later(pause, self._try_again)
                    return
            task = self._loop.create_task(self._bear(), name="backfill-child")
            self._births.add(task)
            task.add_done_callback(self._born)

    def _try_again(self) -> None:
        self._again = None
        self._grow()

    def _born(self, task: asyncio.Task[None]) -> None:
        self._births.discard(task)
        self._grow()

    async def _bear(self) -> None:
        """Start a child and make it known; where that fails, the call that has waited longest fails too."""
        try:
            child = await self._start()
        except Exception as error:  # noqa: BLE001 - it is said to whom it concerns
            self._failed(error)
        else:
            self._failures = 0
            self._serving.add(child)
            self._free(child)

    def _failed(self, error: Exception) -> None:
        """A start has failed. From the fifth on this is an error in the log; there are two of these a minute."""
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 20), _LONGEST_PAUSE)
        self._not_before = self._loop.time() + pause
        hopeless = self._failures >= _HOPELESS and not self._serving
        refused = False
        while self._waiters and (hopeless or not refused):
            refused = _refuse(self._waiters.popleft(), error) or refused
        if self._failures >= _HOPELESS and not self._closing:
            logger.error(
                "%d starts of a child process in a row have failed, so that jobs are put off whose handlers run in "
                "processes; the next start is tried in %g seconds at the earliest: %s",
                self._failures, pause, why(error),
            )  # fmt: skip
        elif not refused and not self._closing:
            logger.warning("%s", why(error))

    async def _start(self) -> Child:
        launched = await self._spawner.start(self._handler)
        child = Child(
            launched,
            self._setup,
            limits_memory=self._max_rss is not None,
            ended=self._gone,
            by_thread=self.by_thread,
        )
        self._children.add(child)
        if self._closing:
            child.kill("was not needed any more")
        try:
            await self._make_ready(child)
        except Exception:
            child.kill()
            await asyncio.wait([child.gone], timeout=self._exit_timeout)
            raise
        except BaseException:
            child.kill()
            raise
        return child

    async def _make_ready(self, child: Child) -> None:
        limit = asyncio.timeout(self._start_timeout)
        try:
            async with limit:
                await child.ready
                if self._closing:
                    raise ChildNotStarted("the pool of child processes is closed")
                if self._announcer is not None:
                    await self._announcer.announce()
        except TimeoutError:
            if not limit.expired():
                raise
            raise ChildNotStarted(f"a child process was not ready within {self._start_timeout:g} seconds") from None
        if child.gone.done():
            raise ChildNotStarted(f"a child process {child.gone.result()} before it had a call")


def _refuse(waiter: asyncio.Future[Child], error: Exception) -> bool:
    """Fail a call that waits for a child; whether it still waited."""
    if waiter.done():
        return False
    waiter.set_exception(error)
    return True
