"""Handlers that tests run in child processes, which import this module; and the same ones for threads."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from backfill import BackfillClient, Discard, InvalidInput, JobFailed, Snooze, TaskRegistry, WorkerContext
from backfill.worker.in_child.records import LOOP_THREAD

from plugins.periods import between_looks, block_for

logger = logging.getLogger("shop.work")


@dataclass
class Order:
    """A payload of a type."""

    number: int
    note: str = ""


@dataclass
class Deps:
    """What the lifespan makes."""

    pid: int
    entered: int


class NeedsTwoError(Exception):
    """An error that cannot be pickled: it has two arguments and keeps one text."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} {second}")
        self.second = second


class HoldsLockError(Exception):
    """An error that cannot be pickled: a lock is one of its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class BrokenTextError(Exception):
    """An error whose own code fails."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError("no text")


class LaterError(JobFailed):
    """An error of the program's that says when to try again."""

    def __init__(self) -> None:
        super().__init__("later", retry_after=timedelta(seconds=77))
        self.lock = threading.Lock()


def _deep(depth: int) -> NoReturn:
    if depth:
        _deep(depth - 1)
    raise LookupError("deep")


def _raise_local() -> NoReturn:
    class LocalError(InvalidInput):
        """A class that only this call knows."""

    raise LocalError("of a local class")


def _raise_from() -> NoReturn:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise RuntimeError("outer") from error


def _raise_in_handling() -> NoReturn:
    try:
        raise NeedsTwoError("inner", 2)
    except NeedsTwoError:
        raise ValueError("while handling")  # noqa: B904 - the context is what is tried


def _raise_group() -> NoReturn:
    found = list[Exception]()
    for number in range(3):
        try:
            raise (ValueError(f"number {number}") if number else NeedsTwoError("one", 1))
        except Exception as error:
            found.append(error)
    raise ExceptionGroup("several", [found[0], ExceptionGroup("within", found[1:])])


def _raise_noted() -> NoReturn:
    error = ValueError("noted")
    error.add_note("a note")
    raise error


def _of(kind: Callable[..., BaseException], *arguments: object) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise kind(*arguments)

    return fail


RAISES: dict[str, Callable[[], object]] = {
    "plain": _of(ValueError, "no \0 good \ud800 text"),
    "without a text": _of(ValueError),
    "os": _of(FileNotFoundError, 2, "No such file", "/nowhere"),
    "unicode": _of(UnicodeDecodeError, "utf-8", b"\xff", 0, 1, "bad"),
    "key": _of(KeyError, "missing"),
    "two arguments": _of(NeedsTwoError, "a", 1),
    "with a lock": _of(HoldsLockError, "locked"),
    "broken text": _of(BrokenTextError),
    "worker error": _of(partial(JobFailed, "again", retry_after=timedelta(seconds=50))),
    "own worker error": _of(LaterError),
    "local class": _raise_local,
    "final": _of(InvalidInput, "nonsense"),
    "deep": lambda: _deep(40),
    "from": _raise_from,
    "while handling": _raise_in_handling,
    "group": _raise_group,
    "noted": _raise_noted,
    "system exit": _of(SystemExit, 3),
    "interrupt": _of(KeyboardInterrupt, "mine"),
    "cancelled": _of(asyncio.CancelledError, "mine"),
    "stop iteration": _of(StopIteration, "end"),
    "generator exit": _of(GeneratorExit),
    "assertion": _of(AssertionError),
    "snooze": _of(Snooze, timedelta(hours=1)),
    "discard": _of(Discard, "not needed"),
    "group of wishes": _of(ExceptionGroup, "wishes", [Discard("one"), Discard("two")]),
    "timeout": _of(TimeoutError, "of its own"),
}
RETURNS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "number": lambda: 42,
    "text": lambda: "é\n",
    "list": lambda: [1, {"a": None}],
    "tuple": lambda: (1, 2),
    "order": lambda: Order(1, "n"),
    "not json": object,
    "not a number": lambda: float("nan"),
    "large": lambda: "x" * 300_000,
}


def raises(how: str) -> Any:
    """Raise what the payload says."""
    return RAISES[how]()


def returns(how: str) -> Any:
    """Return what the payload says."""
    return RETURNS[how]()


def takes(order: Order) -> int:
    """Take a payload of a type."""
    return order.number


def scheduled(order: Order, ctx: WorkerContext[Any]) -> list[Any]:
    """Return what a handler of a scheduled job sees."""
    return [order.number, None if ctx.scheduled_at is None else ctx.scheduled_at.isoformat(), ctx.backfilled]


def pid(ctx: WorkerContext[Any]) -> dict[str, Any]:
    """Say what the context has."""
    ctx.logger.info("hello from %d", ctx.job.id)
    logger.warning("of another logger", extra={"order": 5})
    return {"pid": os.getpid(), "job": ctx.job.id, "attempt": ctx.attempt, "worker": ctx.worker_id}


def sets_up_logs(_: None) -> None:
    """Take the loggers from whoever had them."""
    logging.basicConfig(force=True)


def dies(how: str) -> str:
    """End this process, or say that it lives."""
    if how == "segv":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(7)
    return how


def waits(where: str, ctx: WorkerContext[Any]) -> str:
    """Say that it has begun, and wait until it should stop; then say why."""
    Path(where).write_text(str(os.getpid()), encoding="utf-8")
    while not ctx.should_stop:
        between_looks()
    by = ctx.cancelled_by
    Path(where).write_text(f"stopping={ctx.stopping} by={by.reason if by else None}", encoding="utf-8")
    if ctx.stopping:
        raise Snooze(timedelta(0))
    return "stopped"


def hangs(where: str) -> None:
    """Say that it has begun, and never end by itself."""
    Path(where).write_text(str(os.getpid()), encoding="utf-8")
    block_for(600)


def says_at_its_end(word: str, ctx: WorkerContext[Any]) -> object:
    """Never end by itself, and note a word when it is ended; the next attempt returns the word."""
    if ctx.checkpointed is not None:
        return ctx.checkpointed
    try:
        block_for(600)
    finally:
        ctx.checkpoint(word)
        ctx.logger.warning("the handler was ended")


def burns(milliseconds: int) -> int:
    """Keep a processor busy for so long of its own time."""
    end = time.process_time() + milliseconds / 1000
    count = 0
    while time.process_time() < end:
        count += 1
    return count


def steps(where: str, ctx: WorkerContext[Any]) -> int:
    """Go on from the last checkpoint; the first attempt dies after five steps."""
    begun = ctx.checkpointed or 0
    with Path(where).open("a", encoding="utf-8") as file:
        file.write(f"{begun}\n")
    for step in range(begun, 10):
        if step == 5 and ctx.attempt == 1:
            raise JobFailed("half way", retry_after=timedelta(0))
        ctx.set_progress(step + 1, 10, note="steps")
        ctx.checkpoint(step + 1)
    return begun


def forks(_: None) -> str:
    """Fork, and let both processes return."""
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"


def with_deps(ctx: WorkerContext[Deps]) -> dict[str, int]:
    """Say what the lifespan made here."""
    return {"pid": os.getpid(), "deps": ctx.deps.pid, "entered": ctx.deps.entered}


def any_deps(ctx: WorkerContext[Any]) -> object:
    """Use what the lifespan made."""
    return ctx.deps.pid


@dataclass
class Loop:
    """The loop on which the lifespan runs."""

    loop: asyncio.AbstractEventLoop


@asynccontextmanager
async def enqueuing(client: BackfillClient) -> AsyncIterator[Loop]:
    """Give handlers the loop on which they may use the client."""
    yield Loop(asyncio.get_running_loop())


def enqueues(ctx: WorkerContext[Loop]) -> int:
    """Add another job by the context's client."""
    adding = ctx.client.enqueue("takes", {"number": 1})
    return asyncio.run_coroutine_threadsafe(adding, ctx.deps.loop).result(10).job.id


def around(call_next: Callable[[], object], ctx: WorkerContext[Any]) -> object:
    """Add the process of a synchronous middleware to the result."""
    result = call_next()
    assert isinstance(result, dict)
    return {**result, "around": os.getpid(), "around_job": ctx.job.id}


entered = 0


@asynccontextmanager
async def lifespan(client: BackfillClient) -> AsyncIterator[Deps]:
    """Count how often this process has entered it."""
    global entered
    entered += 1
    yield Deps(os.getpid(), entered)


@asynccontextmanager
async def broken_lifespan(client: BackfillClient) -> AsyncIterator[Deps]:
    """Fail in child processes."""
    if threading.current_thread().name == LOOP_THREAD:
        raise RuntimeError("no deps here")
    yield Deps(os.getpid(), 0)


def registry(where: str = "process", **settings: Any) -> TaskRegistry[Any]:
    """All of these handlers, to be run in processes or in threads."""
    tasks: TaskRegistry[Any] = TaskRegistry()
    fit = (
        raises,
        returns,
        takes,
        scheduled,
        pid,
        sets_up_logs,
        dies,
        waits,
        hangs,
        says_at_its_end,
        burns,
        steps,
        forks,
    )
    for function in fit:
        tasks.task(function.__name__, run_in=where, **settings)(function)  # type: ignore[call-overload]
    return tasks
