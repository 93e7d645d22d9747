"""What is refused as middleware, when it is registered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backfill import CallNext, SyncCallNext, TaskDefinitionError, TaskRegistry, WorkerContext


class Whole:
    """A class in the place of its instance."""

    async def __call__(self, call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        """Pass."""
        return await call_next()


async def one(ctx: WorkerContext[Any]) -> None:
    """Too few arguments."""


async def swapped(ctx: WorkerContext[Any], call_next: CallNext) -> None:
    """The arguments in the wrong order."""


@asynccontextmanager
async def manager(call_next: CallNext, ctx: WorkerContext[Any]) -> AsyncIterator[None]:
    """A context manager."""
    yield


def synchronous(call_next: SyncCallNext, ctx: WorkerContext[Any]) -> Any:
    """Synchronous middleware."""
    return call_next()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, r"registry: middleware = 3: expected `async def middleware\(call_next, ctx\)`"),
        (Whole, "Whole'>: expected `async def"),
        (one, r"middleware = one\(ctx: 'WorkerContext\[Any\]'\) -> 'None': expected `async def"),
        (swapped, "ctx is the second argument"),
        (manager, "middleware = manager, a generator: a context manager is entered inside a middleware"),
    ],
)
def test_what_is_no_middleware_is_refused(wrong: Any, said: str) -> None:
    """By the registry, and by a task; the message names the value and what to write."""
    tasks: TaskRegistry[None] = TaskRegistry()
    with pytest.raises(TaskDefinitionError, match=said):
        tasks.middleware(wrong)
    with pytest.raises(TaskDefinitionError, match=said.replace("registry:", "task 't':")):
        tasks.task("t", middleware=[wrong])


def test_a_task_takes_a_list_that_fits_its_handler() -> None:
    """One function is no list, and a synchronous one cannot wrap an async handler."""
    tasks: TaskRegistry[None] = TaskRegistry()
    wrong: Any = synchronous
    with pytest.raises(TaskDefinitionError, match=r"task 't': middleware = .*: expected a list of functions"):
        tasks.task("t", middleware=wrong)
    with pytest.raises(
        TaskDefinitionError, match="middleware = synchronous: it is synchronous and the handler is async"
    ):

        @tasks.task("t", middleware=[synchronous])
        async def handler() -> None: ...

    assert len(tasks) == 0
