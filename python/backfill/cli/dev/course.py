"""The course of `backfill dev`: a database, a worker, and a new worker each time the code changes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from backfill.cli.common import ExitCode
from backfill.cli.dev import telling
from backfill.cli.dev.child import Child
from backfill.cli.dev.database import Choice, Database, opened, tell_where
from backfill.cli.dev.files import Project
from backfill.cli.dev.telling import Teller
from backfill.cli.dev.watching import Watcher
from backfill.cli.migrate import bring_up_to_date
from backfill.cli.options import MAX_JOBS, MAX_RSS, PROCESSES
from backfill.cli.settings import without

SOON_SECONDS: Final = 10.0
"""A worker that ends by itself so soon after its start is not started again before the code changes."""
_OF_FLEETS: Final = frozenset(name for one in (PROCESSES, MAX_JOBS, MAX_RSS) for name in one.variables)
"""Variables that are meant for a fleet of worker processes; there is one worker here."""
AGAIN_SECONDS: Final = 2.0
"""How long after a failure of the database a worker is started again."""


@dataclass(frozen=True)
class Plan:
    """What the command's options say.

    Attributes:
        registries: the names of the registries.
        words: the command line of the worker, which has them and its options.
        choice: the database.
        schema: the queue's schema.
        project: the files that are watched.
        drain: how long running jobs may take to end at a reload and at the end.
    """

    registries: Sequence[str]
    words: Sequence[str]
    choice: Choice
    schema: str
    project: Project
    drain: timedelta


class Course:
    """One run of the command.

    Args:
        plan: what the options say.
        teller: who says what happens.
    """

    def __init__(self, plan: Plan, teller: Teller) -> None:
        self._plan = plan
        self._teller = teller
        self._changed: dict[str, None] = {}
        self._changed_at = 0.0
        self._news = asyncio.Event()
        self._signals = 0
        self._tasks = list[str]()
        self._begun = False
        self._worker: Child | None = None
        self._standby: Child | None = None

    async def run(self) -> ExitCode:
        """Run until a signal comes; the worker then ends in an orderly way, and the database of its own after it.

        Raises:
            BackfillError: the database cannot be used.
        """
        task = asyncio.ensure_future(self._perform())
        self._obey_signals(task)
        try:
            await task
        except asyncio.CancelledError:
            if not self._signals:
                raise
            return ExitCode.INTERRUPTED
        return ExitCode.OK if self._signals < 2 else ExitCode.INTERRUPTED

    async def _perform(self) -> None:
        plan = self._plan
        async with opened(plan.choice, self._teller) as database:
            await bring_up_to_date(database.dsn, plan.schema)
            tell_where(plan.choice, database, self._teller, "enqueue TASK '{}'")
            async with Watcher(plan.project, self._on_change, self._teller.warn) as watcher:
                roots = ", ".join(map(str, plan.project.roots))
                count = f"{watcher.files} Python file{'s' * (watcher.files != 1)}"
                self._teller.say(f"watching {count} in {roots}; Ctrl-C ends this")
                try:
                    await self._work(database)
                finally:
                    await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _work(self, database: Database) -> None:
        """Have one worker after the other, until a signal comes."""
        environment = {**without(os.environ, _OF_FLEETS), **database.variables}
        loop = asyncio.get_running_loop()
        began, reason = loop.time(), list[str]()
        while not self._stopping():
            self._begun = True
            worker = self._worker = await self._next(environment)
            if self._stopping():
                break
            started = loop.time()
            worker.go()
            if await self._until(worker, worker.working):
                self._tell_working(worker, loop.time() - began, reason)
                self._standby = await self._spawn(environment)
                await self._until(worker, None)
            if worker.code is not None and not self._news.is_set():
                await self._after_end(worker, loop.time() - started)
            if not self._stopping():
                began, reason = self._take_news()
                if reason:
                    self._teller.say(f"{telling.files(reason)} changed: reloading")
            await self._end(worker)
            if self._changed:  # meanwhile; the next worker will import these files too, as they are now
                reason = sorted({*reason, *self._take_news()[1]})

    def _stopping(self) -> bool:
        """Whether a signal has come."""
        return self._signals > 0

    async def _next(self, environment: Mapping[str, str]) -> Child:
        """The process that waits, or a new one if there is none, or if it has ended."""
        waiting, self._standby = self._standby, None
        if waiting is not None and waiting.code is None:
            return waiting
        if waiting is not None:
            await waiting.close()
        return await self._spawn(environment)

    async def _spawn(self, environment: Mapping[str, str]) -> Child:
        """Start a process, which does not work yet."""
        return await Child.start(self._plan.registries, self._plan.words, environment)

    async def _until(self, worker: Child, event: asyncio.Event | None) -> bool:
        """Wait until the event is set, and return True; False if the worker ends or there is news before."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._news.wait())]
        if event is not None:
            waits.append(asyncio.ensure_future(event.wait()))
        try:
            await asyncio.wait([*waits, worker.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return event is not None and event.is_set() and not self._news.is_set() and not worker.ended.done()

    async def _after_end(self, worker: Child, lived: float) -> None:
        """Wait after a worker has ended by itself: for a change of the code, or for a moment, if that may help."""
        self._teller.warn(_ending(worker))
        again = worker.code == ExitCode.UNREACHABLE or (worker.working.is_set() and lived > SOON_SECONDS)
        if again:
            self._teller.say(f"the worker is started again in {AGAIN_SECONDS:g} s, or when a file changes")
        else:
            self._teller.say("waiting for a change of the code")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_SECONDS if again else None):
                await self._news.wait()

    def _take_news(self) -> tuple[float, list[str]]:
        """When the files changed that have changed since the last call, and which they are."""
        names = [self._plan.project.name(path) for path in self._changed]
        began = self._changed_at if names else asyncio.get_running_loop().time()
        for path in self._changed:
            _forget_compiled(path)
        self._changed.clear()
        self._news.clear()
        return began, names

    async def _end(self, worker: Child) -> None:
        """End a worker in an orderly way, and say what became of its jobs."""
        if worker.code is None:
            await worker.end(self._plan.drain.total_seconds())
            if worker.killed:
                self._teller.warn(
                    "the worker did not end and was killed; other workers run its jobs again once they find it dead"
                )
        if worker.returned:
            count = len(worker.returned)
            self._teller.say(
                f"{count} job{'s' * (count > 1)} still ran and went back to the queue: "
                f"{', '.join(sorted(set(worker.returned)))}"
            )
        await worker.close()
        self._worker = None

    async def _close(self) -> None:
        """End all processes."""
        for child in (self._worker, self._standby):
            if child is not None:
                await child.close()

    def _tell_working(self, worker: Child, seconds: float, reason: list[str]) -> None:
        """Say that a worker works, after how long and why."""
        how = f"reloaded in {seconds:.1f} s because {telling.files(reason)} changed" if reason else "the worker runs"
        if worker.tasks != self._tasks:
            self._tasks = worker.tasks
            how += f"; it has {telling.tasks(worker.tasks)}"
        self._teller.say(how)

    def _on_change(self, paths: list[str]) -> None:
        """Note that files have changed."""
        if not self._changed:
            self._changed_at = asyncio.get_running_loop().time()
        self._changed.update(dict.fromkeys(paths))
        self._news.set()

    def _on_signal(self, task: asyncio.Task[None]) -> None:
        """Stop at the first signal, hurry the worker at the second, and end it by force at the third."""
        self._signals += 1
        self._news.set()
        worker = self._worker
        if self._signals == 1:
            self._teller.say("stopping; another Ctrl-C interrupts running jobs at once")
            if not self._begun:
                task.cancel()
        elif worker is not None:
            (worker.tell_to_stop if self._signals == 2 else worker.kill)()

    def _obey_signals(self, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if sys.platform != "win32" else [])
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, task)


def _ending(worker: Child) -> str:
    """How a worker has ended by itself."""
    code = worker.code or 0
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"the worker process was killed by signal {-code} ({name})"
    if worker.working.is_set():
        return f"the worker process has ended with exit code {code}"
    return "the worker did not start"


def _forget_compiled(path: str) -> None:
    """Remove the compiled form of a file that has changed.

    Python compares seconds and sizes. So it would take an old form for the new one if a file of the same length is
    written twice in a second.
    """
    with contextlib.suppress(OSError, NotImplementedError):
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
