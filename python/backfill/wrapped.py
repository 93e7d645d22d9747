"""A task as a worker runs it: with its middleware around its handler, put together once, when the worker starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from backfill.middleware import AsyncCall, Function, Returned, SyncCall, around_loop, around_thread, is_async
from backfill.task import Task, Threads

if TYPE_CHECKING:
    from backfill.worker.context import WorkerContext

P = TypeVar("P")
R = TypeVar("R")


class WrappedTask(Task[P, R]):
    """A copy of a task whose `invoke` runs the middleware around the handler; it always needs a context.

    Args:
        task: the task.
        middleware: the functions that wrap its handler, the first outermost. All async ones run outside of the
            synchronous ones, since these run in the handler's thread.
        returned: called after each `call_next`, in the process and thread that it ended in.
    """

    def __init__(self, task: Task[P, R], middleware: Sequence[Function], returned: Returned) -> None:
        vars(self).update(vars(task))
        self.shape = replace(task.shape, context=True)
        outer = [function for function in middleware if is_async(function)]
        inner = [function for function in middleware if not is_async(function)]
        self.runs_on_loop = task.shape.is_async or bool(outer)
        self._chain = around_loop(outer, _handler_call(task, inner, returned), returned)

    def invoke(
        self, payload: Any, ctx: WorkerContext[Any] | None, threads: Threads = asyncio.to_thread
    ) -> Awaitable[R]:
        """Call the middleware, and within it the handler; the result is to be awaited."""
        return self._chain(payload, ctx, threads)


def wrapped(task: Task[P, R], middleware: Sequence[Function], returned: Returned) -> Task[P, R]:
    """The task with those of the functions around its handler that can wrap it; the task itself if there are none.

    Args:
        task: the task.
        middleware: async functions, which wrap every handler, and synchronous ones, which wrap synchronous handlers.
        returned: called after each `call_next`, in the process and thread that it ended in.
    """
    fit = [function for function in middleware if is_async(function) or not task.shape.is_async]
    return WrappedTask(task, fit, returned) if fit else task


def _handler_call(task: Task[P, R], inner: Sequence[Function], returned: Returned) -> AsyncCall:
    """What runs the handler, in a thread if it is synchronous, within the middleware that runs in that thread."""
    if not inner:
        return task.invoke
    shape, handler = task.shape, task.handler

    def call(payload: Any, ctx: Any) -> Any:
        arguments = [] if shape.payload is None else [payload]
        return handler(*arguments, ctx) if shape.context else handler(*arguments)

    chain: SyncCall = around_thread(inner, call, returned)

    async def run(payload: Any, ctx: Any, threads: Threads) -> Any:
        result: Any = await threads(chain, payload, ctx)
        return await result if isawaitable(result) else result

    return run
