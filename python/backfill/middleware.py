"""Middleware: functions of the program that run around a handler, such as one that holds a transaction open.

An async middleware runs in the attempt's asyncio task, around handlers of both kinds. A synchronous one runs in the
thread of a synchronous handler, so that what belongs to a thread is there for the handler too. This module has the
types of both, checks what is registered, and puts the functions around a handler.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from backfill.errors import TaskDefinitionError

if TYPE_CHECKING:
    from backfill.worker.context import WorkerContext

D = TypeVar("D")


class CallNext(Protocol):
    """The type of an async middleware's first argument; any function without arguments fits that gives a coroutine."""

    def __call__(self) -> Coroutine[Any, Any, Any]:
        """Run the rest of the attempt, when awaited: the middleware within, and the handler; give its result.

        Raises:
            RuntimeError: it was called before, or its middleware has ended.
        """
        ...


class SyncCallNext(Protocol):
    """The type of a synchronous middleware's first argument; any function without arguments fits."""

    def __call__(self) -> Any:
        """Run the rest of the attempt in this thread: the middleware within, and the handler; return its result.

        Raises:
            RuntimeError: it was called before, or its middleware has ended.
        """
        ...


class AsyncMiddleware(Protocol[D]):
    """The type of an async middleware; `D` is the type of `ctx.deps`."""

    def __call__(self, call_next: CallNext, ctx: WorkerContext[D], /) -> Awaitable[Any]:
        """Run around the rest of an attempt, and give its result."""
        ...


class SyncMiddleware(Protocol[D]):
    """The type of a synchronous middleware; `D` is the type of `ctx.deps`.

    Its `call_next` returns `object`, so that a type checker refuses an async function that forgets to await it.
    """

    def __call__(self, call_next: Callable[[], object], ctx: WorkerContext[D], /) -> object:
        """Run around the rest of an attempt, in its thread, and return its result."""
        ...


Function: TypeAlias = Callable[[Any, Any], Any]
"""A middleware of either kind."""
Returned: TypeAlias = Callable[[BaseException | None], None]
"""Called with what a handler or a middleware raised, or with None, in the process and thread that it ended in."""
AsyncCall: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
"""The rest of an attempt on the loop: called with the payload, the context, and what runs functions in threads."""
SyncCall: TypeAlias = Callable[[Any, Any], Any]
"""The rest of an attempt in a thread: called with the payload and the context."""

_FORM: Final = (
    "`async def middleware(call_next, ctx)`, which returns `await call_next()`, or around synchronous handlers "
    "`def middleware(call_next, ctx)`, which returns `call_next()`"
)
_WITHIN: Final = "a context manager is entered inside a middleware: `async with ...: return await call_next()`"
_CONTEXTS: Final = frozenset({"ctx", "context"})


def is_async(function: Function) -> bool:
    """Whether a middleware is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def checked(function: object, where: str) -> Function:
    """The same function, if it can be a middleware.

    Args:
        function: what was given as a middleware.
        where: where it was given, for the error.

    Raises:
        TaskDefinitionError: it is not a function of two arguments, or it is a generator or a class.
    """
    if not callable(function) or isinstance(function, type):
        raise TaskDefinitionError(f"{where}: middleware = {function!r}: expected {_FORM}")
    inner = inspect.unwrap(function)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise TaskDefinitionError(f"{where}: middleware = {name_of(function)}, a generator: {_WITHIN}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a callable that is written in C may have no signature
        return function
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TaskDefinitionError(f"{where}: middleware = {name_of(function)}{signature}: expected {_FORM}") from error
    first = next(iter(signature.parameters.values()))
    if first.name in _CONTEXTS or "WorkerContext" in str(first.annotation):
        raise TaskDefinitionError(
            f"{where}: middleware = {name_of(function)}{signature}: ctx is the second argument; expected {_FORM}"
        )
    return function


def checked_list(functions: object, where: str) -> tuple[Function, ...]:
    """The middleware that a task was given, if all of it is middleware.

    Args:
        functions: what was given as `middleware=`.
        where: where it was given, for the error.

    Raises:
        TaskDefinitionError: it is no list, or holds something else.
    """
    if callable(functions) or isinstance(functions, str) or not isinstance(functions, Iterable):
        raise TaskDefinitionError(f"{where}: middleware = {functions!r}: expected a list of functions: [middleware]")
    return tuple(checked(function, where) for function in functions)


def refuse_synchronous(functions: Iterable[Function], where: str) -> None:
    """Refuse synchronous middleware for an async handler.

    Raises:
        TaskDefinitionError: one of the functions is synchronous.
    """
    for function in functions:
        if not is_async(function):
            raise TaskDefinitionError(
                f"{where}: middleware = {name_of(function)}: it is synchronous and the handler is async; write it as "
                "`async def`, and return `await call_next()`"
            )


def name_of(function: object) -> str:
    """The name of a function, for messages."""
    return getattr(function, "__qualname__", None) or repr(function)


def around_loop(functions: Sequence[Function], call: AsyncCall, returned: Returned) -> AsyncCall:
    """Put async middleware around a call, the first outermost.

    Args:
        functions: the middleware.
        call: what the innermost one's `call_next` runs.
        returned: called after each `call_next`, in the process that it ended in.
    """
    for function in reversed(functions):
        call = _async_layer(function, call, returned)
    return call


def around_thread(functions: Sequence[Function], call: SyncCall, returned: Returned) -> SyncCall:
    """Put synchronous middleware around a call that a thread runs, the first outermost; arguments as `around_loop`."""
    for function in reversed(functions):
        call = _sync_layer(function, call, returned)
    return call


def _async_layer(function: Function, call: AsyncCall, returned: Returned) -> AsyncCall:
    async def layer(payload: Any, ctx: Any, threads: Any) -> Any:
        following = _Next(function, call, returned, (payload, ctx, threads))
        try:
            result = await function(following, ctx)
        except BaseException:
            following.called = True
            if following.is_open:
                await following.end()
            raise
        following.called = True
        if following.is_open and await following.end():
            raise RuntimeError(
                f"middleware {name_of(function)} ended without awaiting its call_next(), so the handler was cut off: "
                "write `await call_next()`"
            )
        return result

    return layer


class _Next:
    """The `call_next` of one attempt and one async middleware.

    Attributes:
        called: whether it was called, or cannot be called any more.
        is_open: whether it was called and the call has not ended.
    """

    __slots__ = ("_arguments", "_call", "_coroutine", "_function", "_returned", "_task", "called", "is_open")

    def __init__(self, function: Function, call: AsyncCall, returned: Returned, arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._call = call
        self._returned = returned
        self._arguments = arguments
        self.called = self.is_open = False
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._task: asyncio.Task[Any] | None = None

    def __call__(self) -> Coroutine[Any, Any, Any]:
        """Run the rest of the attempt, when awaited.

        Raises:
            RuntimeError: it was called before, or its middleware has ended.
        """
        if self.called:
            raise _called_again(self._function)
        self.called = self.is_open = True
        self._coroutine = coroutine = self._run()
        return coroutine

    async def _run(self) -> Any:
        self._coroutine, self._task = None, asyncio.current_task()
        try:
            result = await self._call(*self._arguments)
        except BaseException as error:
            self._returned(error)
            raise
        else:
            self._returned(None)
            return result
        finally:
            self.is_open = False

    async def end(self) -> bool:
        """End a call that its middleware has left open: cancel it, and wait until it has ended.

        Returns:
            Whether the middleware left the call to itself; False if it had cancelled it.
        """
        if self._coroutine is not None:  # it was not awaited, or not yet
            self._coroutine.close()
            self._coroutine = None
            return True
        task = self._task
        if task is None or task is asyncio.current_task():
            return True
        left = not task.cancelling()
        if left:
            task.cancel()
        await asyncio.wait([task])
        return left


def _sync_layer(function: Function, call: SyncCall, returned: Returned) -> SyncCall:
    def layer(payload: Any, ctx: Any) -> Any:
        following = _SyncNext(function, call, returned, (payload, ctx))
        try:
            result = function(following, ctx)
        except BaseException:
            following.close()
            raise
        if following.close():
            raise RuntimeError(
                f"middleware {name_of(function)} ended before its call_next(), which runs in another thread: call it "
                "in the thread that the middleware runs in"
            )
        return result

    return layer


class _SyncNext:
    """The `call_next` of one attempt and one synchronous middleware."""

    __slots__ = ("_arguments", "_call", "_called", "_ended", "_function", "_returned")

    def __init__(self, function: Function, call: SyncCall, returned: Returned, arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._call = call
        self._returned = returned
        self._arguments = arguments
        self._called = threading.Lock()
        self._ended = threading.Lock()
        self._ended.acquire()  # released when the call has ended

    def __call__(self) -> Any:
        """Run the rest of the attempt.

        Raises:
            RuntimeError: it was called before, or its middleware has ended.
        """
        if not self._called.acquire(blocking=False):
            raise _called_again(self._function)
        try:
            result = self._call(*self._arguments)
        except BaseException as error:
            self._returned(error)
            raise
        else:
            self._returned(None)
            return result
        finally:
            self._ended.release()

    def close(self) -> bool:
        """Refuse calls from now on, and wait for one that another thread makes; return whether there was one."""
        if self._called.acquire(blocking=False) or self._ended.acquire(blocking=False):
            return False
        self._ended.acquire()
        return True


def _called_again(function: Function) -> RuntimeError:
    return RuntimeError(
        f"middleware {name_of(function)} called call_next() a second time, or after it had ended: an attempt runs its "
        "handler once; raise an error, and the job is tried again"
    )
