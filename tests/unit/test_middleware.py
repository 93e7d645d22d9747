"""Middleware around handlers, by `run_job`: what runs where, in which order, and what becomes of results and errors."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from backfill import CallNext, JobSpec, Snooze, SyncCallNext, TaskRegistry, WorkerContext
from backfill.testing import run_job

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
HERE = threading.local()


def noting(steps: list[str], name: str) -> Callable[..., Any]:
    """An async middleware that notes when it runs."""

    async def middleware(call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        steps.append(name)
        result = await call_next()
        steps.append(f"after {name}")
        return result

    return middleware


def noting_in_thread(steps: list[str], name: str) -> Callable[..., Any]:
    """A synchronous middleware that notes when it runs."""

    def middleware(call_next: SyncCallNext, ctx: WorkerContext[Any]) -> Any:
        steps.append(name)
        result = call_next()
        steps.append(f"after {name}")
        return result

    return middleware


def expected_order(*names: str) -> list[str]:
    """What nested middleware notes, the outermost named first."""
    return [*names, *(f"after {name}" for name in reversed(names))]


async def test_the_first_is_the_outermost() -> None:
    """The registry's run in the order of registration, then the task's in the order given; both kinds of handler."""
    steps = list[str]()
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.middleware(noting(steps, "first"))

    @tasks.task("async", middleware=[noting(steps, "own"), noting(steps, "own too")])
    async def is_async() -> None: ...

    @tasks.task("sync", middleware=[noting(steps, "own")])
    def is_sync() -> None: ...

    tasks.middleware(noting(steps, "second"))
    await run_job(is_async)
    assert steps == expected_order("first", "second", "own", "own too")
    steps.clear()
    await run_job(is_sync)
    assert steps == expected_order("first", "second", "own")


async def test_synchronous_middleware_runs_inside_in_the_thread() -> None:
    """It wraps synchronous handlers within all async middleware, and async handlers not at all."""
    steps = list[str]()
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.middleware(noting_in_thread(steps, "thread"))
    tasks.middleware(noting(steps, "loop"))

    @tasks.task("async")
    async def is_async() -> None: ...

    @tasks.task("sync", middleware=[noting(steps, "own loop"), noting_in_thread(steps, "own thread")])
    def is_sync() -> None: ...

    await run_job(is_sync)
    assert steps == expected_order("loop", "own loop", "thread", "own thread")
    steps.clear()
    await run_job(is_async)
    assert steps == expected_order("loop")


async def test_what_a_thread_has_is_there_for_the_handler() -> None:
    """A synchronous middleware sets thread-locals and context variables, an async one context variables."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.middleware
    async def tenant(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        TENANT.set(f"tenant of {ctx.job.payload}")
        return await call_next()

    @tasks.middleware
    def locale(call_next: SyncCallNext, ctx: WorkerContext[None]) -> Any:
        HERE.locale = "de"
        try:
            return call_next()
        finally:
            del HERE.locale

    @tasks.task("sync")
    def is_sync(number: int) -> tuple[str, str]:
        return TENANT.get(), HERE.locale

    @tasks.task("async")
    async def is_async(number: int) -> str:
        return TENANT.get()

    async def alone() -> None:
        assert await run_job(is_sync, 3) == ("tenant of 3", "de")
        assert await run_job(is_async, 4) == "tenant of 4"

    await asyncio.create_task(alone())  # run_job has no task of its own, as a worker's attempts have
    assert TENANT.get() == "nobody"


async def test_middleware_sees_the_result_and_may_change_it() -> None:
    """What the outermost returns is the result, also if no handler ran."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[int]()

    @tasks.middleware
    async def doubling(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        return 0 if ctx.job.payload == 5 else 2 * await call_next()

    @tasks.task("number")
    async def number(given: int) -> int:
        ran.append(given)
        return given

    assert await run_job(number, 4) == 8
    assert await run_job(number, 5) == 0
    assert ran == [4]
    assert await number(4) == 4, "a task that is called directly runs without middleware"


async def test_middleware_sees_the_error_and_may_change_it() -> None:
    """What it raises in the place of the handler's error is the attempt's."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.middleware
    def later(call_next: SyncCallNext, ctx: WorkerContext[None]) -> Any:
        try:
            return call_next()
        except ConnectionError as error:
            raise Snooze(timedelta(minutes=1)) from error

    @tasks.task("fails")
    def fails(kind: str) -> None:
        raise ConnectionError if kind == "connection" else ValueError(kind)

    with pytest.raises(Snooze):
        await run_job(fails, "connection")
    with pytest.raises(ValueError, match="other"):
        await run_job(fails, "other")


async def test_included_registries_keep_their_middleware() -> None:
    """That of the including registry runs around it, whichever was registered first; prefixes change nothing."""
    steps = list[str]()
    inner: TaskRegistry[None] = TaskRegistry()
    inner.middleware(noting(steps, "inner"))

    @inner.task("t", middleware=[noting(steps, "own")])
    async def t() -> None: ...

    middle: TaskRegistry[None] = TaskRegistry()
    middle.include(inner, "a.")
    middle.include(inner)
    outer: TaskRegistry[None] = TaskRegistry()
    outer.middleware(noting(steps, "outer"))
    outer.include(middle, "b.")
    outer.add([t], within=middle)
    middle.middleware(noting(steps, "middle"))
    inner.middleware(noting(steps, "inner too"))
    whole = expected_order("outer", "middle", "inner", "inner too", "own")
    for name in ("b.a.t", "b.t", "t"):
        task = outer.get(name)
        assert task is not None
        await run_job(task, registry=outer)
        assert steps == whole, name
        steps.clear()
    added: TaskRegistry[None] = TaskRegistry()
    added.add(middle)
    await run_job(t, registry=added)
    assert steps == expected_order("middle", "inner", "inner too", "own")
    steps.clear()
    await run_job(t)
    assert steps == expected_order("inner", "inner too", "own")


async def test_a_registry_without_middleware_is_run_as_it_is() -> None:
    """Its tasks are the very same objects; where some have middleware, the others still are."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("a")
    async def a() -> None: ...

    assert tasks.wrapped(lambda _: None) is tasks

    @tasks.task("b", middleware=[noting([], "b")], aliases=["c"])
    async def b() -> None: ...

    whole = tasks.wrapped(lambda _: None)
    assert whole.get("a") is a
    assert whole.get("b") is whole.get("c") is not b
    assert tasks.get("b") is b


async def test_call_next_runs_the_handler_once() -> None:
    """A second call is refused, on the loop and in a thread, and so is one after the middleware has ended."""
    tasks: TaskRegistry[None] = TaskRegistry()
    kept, ran = list[Any](), list[str]()

    async def twice(call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        await call_next()
        return await call_next()

    def twice_in_thread(call_next: SyncCallNext, ctx: WorkerContext[Any]) -> Any:
        call_next()
        return call_next()

    async def keeping(call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        kept.append(call_next)

    @tasks.task("async", middleware=[twice])
    async def is_async() -> None:
        ran.append("async")

    @tasks.task("sync", middleware=[twice_in_thread])
    def is_sync() -> None:
        ran.append("sync")

    @tasks.task("kept", middleware=[keeping])
    async def is_kept() -> None:
        ran.append("kept")

    with pytest.raises(RuntimeError, match=r"twice called call_next\(\) a second time"):
        await run_job(is_async)
    with pytest.raises(RuntimeError, match=r"twice_in_thread called call_next\(\) a second time"):
        await run_job(is_sync)
    await run_job(is_kept)
    with pytest.raises(RuntimeError, match="after it had ended"):
        await kept[0]()
    assert ran == ["async", "sync"]


async def test_a_call_that_is_not_awaited_is_an_error() -> None:
    """A forgotten await, or a task that is left running, would complete the job without its handler."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ended, left = list[str](), list[asyncio.Task[Any]]()

    async def forgets(call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        return call_next()

    async def leaves(call_next: CallNext, ctx: WorkerContext[Any]) -> None:
        left.append(asyncio.create_task(call_next()))
        await asyncio.sleep(0)

    async def cancels(call_next: CallNext, ctx: WorkerContext[Any]) -> str:
        task = asyncio.create_task(call_next())
        await asyncio.sleep(0)
        task.cancel()
        return "cancelled"

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    forgetting = tasks.task("forgets", middleware=[forgets])(handler)
    leaving = tasks.task("leaves", middleware=[leaves])(handler)
    cancelling = tasks.task("cancels", middleware=[cancels])(handler)
    with pytest.raises(RuntimeError, match=r"forgets ended without awaiting its call_next\(\)"):
        await run_job(forgetting)
    assert ended == []
    with pytest.raises(RuntimeError, match="leaves ended without awaiting"):
        await run_job(leaving)
    assert (ended, left[0].cancelled()) == (["ended"], True)
    result: Any = await run_job(cancelling)
    assert (result, ended) == ("cancelled", ["ended", "ended"])


async def test_a_call_from_another_thread_is_waited_for() -> None:
    """The attempt does not end before its handler, and its failure says what to do."""
    tasks: TaskRegistry[None] = TaskRegistry()
    release, ended = threading.Event(), list[str]()

    def elsewhere(call_next: SyncCallNext, ctx: WorkerContext[Any]) -> None:
        begun = threading.Event()

        def call() -> None:
            begun.set()
            call_next()

        threading.Thread(target=call).start()
        begun.wait()
        started.wait()
        release.set()

    started = threading.Event()

    @tasks.task("t", middleware=[elsewhere])
    def handler() -> None:
        started.set()
        release.wait()
        ended.append("ended")

    with pytest.raises(RuntimeError, match="runs in another thread"):
        await run_job(handler)
    assert ended == ["ended"]


async def test_time_limits_end_what_runs_on_the_loop() -> None:
    """An async middleware is cancelled by the timeout, around either kind; a thread is only asked to stop."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen = list[str]()

    @tasks.middleware
    async def waiting(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        try:
            if ctx.job.payload == "waits":
                await asyncio.Event().wait()
            return await call_next()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @tasks.task("async", timeout=timedelta(milliseconds=10))
    async def is_async(how: str) -> None:
        await asyncio.Event().wait()

    @tasks.task("sync", timeout=timedelta(milliseconds=10))
    def is_sync(how: str, ctx: WorkerContext[None]) -> str:
        while not ctx.should_stop:
            pass
        return "late"

    for task in (is_async, is_sync):
        with pytest.raises(TimeoutError):
            await run_job(task, "waits")
    with pytest.raises(TimeoutError):
        await run_job(is_async, "works")
    assert seen == ["cancelled"] * 3
    assert await run_job(is_sync, "works") == "late"


class Counting:
    """An object with an async `__call__`."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        """Count."""
        self.count += 1
        return await call_next()


async def test_objects_and_partials_are_middleware() -> None:
    """They are async if what they call is."""
    tasks: TaskRegistry[None] = TaskRegistry()
    steps, counting = list[str](), Counting()

    async def named(name: str, call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        steps.append(name)
        return await call_next()

    @tasks.task("t", middleware=[counting, functools.partial(named, "a name")])
    async def handler() -> None: ...

    await run_job(handler)
    assert (counting.count, steps) == (1, ["a name"])


async def test_the_last_attempt_is_told() -> None:
    """By the number of runs that the job has."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def last(ctx: WorkerContext[None]) -> bool:
        return ctx.is_last_attempt

    assert [await run_job(last, attempt=n, spec=JobSpec(max_attempts=3)) for n in (1, 2, 3, 4)] == [
        False, False, True, True,
    ]  # fmt: skip
