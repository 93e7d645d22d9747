"""The type of the decorator that registers a handler: it gives each shape of a handler a `Task` of the right types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from backfill.task import Task

if TYPE_CHECKING:
    from backfill.worker.context import WorkerContext

P = TypeVar("P")
R = TypeVar("R")
D = TypeVar("D")


class _Anything:
    """A type that no payload has: a handler that accepts it accepts anything (`Any`, `object`), so any payload fits."""


class TaskDecorator(Protocol[D]):
    """The decorator that `registry.task(...)` returns: it turns each shape of a handler into a Task of the right types.

    `D` is the registry's type of `ctx.deps`; type checkers refuse a handler whose context has another. The shape with
    two arguments stands first and last: if no overload fits, mypy shows the first one, and pyright the last.
    """

    @overload
    def __call__(self, handler: Callable[[P, WorkerContext[D]], Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[_Anything], Awaitable[R]], /) -> Task[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[WorkerContext[D]], Awaitable[R]], /) -> Task[None, R]: ...
    @overload  # a handler that takes only a context is matched above; to a checker both shapes look alike
    def __call__(self, handler: Callable[[P], Awaitable[R]], /) -> Task[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, handler: Callable[[], Awaitable[R]], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[_Anything], R], /) -> Task[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[WorkerContext[D]], R], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[[], R], /) -> Task[None, R]: ...
    @overload
    def __call__(self, handler: Callable[[P, WorkerContext[D]], R], /) -> Task[P, R]: ...
