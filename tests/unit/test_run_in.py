"""Where a handler runs: what `run_in` takes, and which handlers and what around them no child process could find."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import process_tasks
from backfill import TaskDefinitionError, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.importable import fault_of, found_by, reference_to
from backfill.worker.reachable import refuse_unreachable


def at_the_top(payload: int) -> int:
    """A handler that a child could import."""
    return payload


async def on_the_loop(payload: int) -> int:
    """An async handler."""
    return payload


class Jobs:
    """A class with a method that somebody takes for a handler."""

    def method(self) -> None:
        """A method."""

    def __call__(self) -> None:
        """An object that can be called."""


def _inner() -> Callable[..., Any]:
    def closure() -> None:
        """A closure."""

    return closure


def _of_main() -> None:
    """A handler of the main file."""


_of_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_inner(), "is defined inside of a function"),
        (lambda: None, "is a lambda"),
        (Jobs().method, "is a method"),
        (Jobs(), "is no function with a name"),
        (functools.partial(at_the_top, 1), "is no function with a name"),
        (_of_main, "is in the program's main file"),
    ],
)
def test_what_no_child_could_import_is_refused(handler: Callable[..., Any], said: str) -> None:
    """At registration, by an error that says why and what to write instead; in a thread it may run."""
    with pytest.raises(TaskDefinitionError, match=said) as caught:
        TaskRegistry[None]().task("t", run_in="process")(handler)
    assert "at the top level of a module" in str(caught.value)
    assert not TaskRegistry[None]().task("t", run_in="thread")(handler).shape.in_process


@pytest.mark.parametrize("where", ["process", "thread"])
def test_an_async_handler_runs_on_the_loop_alone(where: Any) -> None:
    """To say that it runs elsewhere is a mistake."""
    with pytest.raises(TaskDefinitionError, match="is async and runs on the event loop"):
        TaskRegistry[None]().task("t", run_in=where)(on_the_loop)


@pytest.mark.parametrize("where", ["fork", "", True, 1])
def test_other_places_are_refused(where: Any) -> None:
    """The error names the two that there are."""
    with pytest.raises(TaskDefinitionError, match='expected "thread" or "process"'):
        TaskRegistry[None]().task("t", run_in=where)(at_the_top)


def test_a_task_in_a_process_keeps_that_under_a_prefix_and_within_middleware() -> None:
    """Registries that include it, and the worker's own form of it, have the same shape."""
    tasks, whole = TaskRegistry[None](), TaskRegistry[None]()
    tasks.task("t", run_in="process")(at_the_top)
    whole.include(tasks, prefix="shop.")

    @whole.middleware
    async def outer(call_next: Any, ctx: Any) -> Any:
        return await call_next()

    for found in (tasks.get("t"), whole.get("shop.t"), whole.wrapped(lambda _: None).get("shop.t")):
        assert found is not None
        assert found.shape.in_process


def test_a_handler_is_found_by_its_name() -> None:
    """What a child finds is what was meant, or an error that says what is missing."""
    assert fault_of(at_the_top) is None
    assert found_by(reference_to(process_tasks.pid)) is process_tasks.pid
    with pytest.raises(TaskDefinitionError, match="has no 'gone'"):
        found_by("process_tasks:gone")


def _replaced() -> None:
    """A handler under whose name its module has something else."""


_first = _replaced
_replaced = _first.__class__(_first.__code__, globals(), "_replaced")  # type: ignore[misc]


def test_a_worker_refuses_a_handler_that_its_module_does_not_have() -> None:
    """Since each attempt would run another function, or none."""
    tasks = TaskRegistry[None]()
    tasks.task("t", run_in="process")(_first)
    with pytest.raises(TaskDefinitionError, match="is another object than its handler"):
        WorkerRunner(WorkerConfig("postgresql://nowhere"), tasks)


def test_a_worker_refuses_what_its_children_could_not_have() -> None:
    """A synchronous middleware or a lifespan that cannot be imported, and deps that nobody makes there."""
    tasks = TaskRegistry[Any]()
    tasks.task("t", run_in="process")(process_tasks.pid)

    @tasks.middleware
    def inner(call_next: Callable[[], object], ctx: Any) -> object:
        return call_next()

    with pytest.raises(TaskDefinitionError, match=r"middleware .*inner is defined inside of a function"):
        refuse_unreachable(tasks)

    def lifespan(client: Any) -> Any:
        raise NotImplementedError

    tasks = TaskRegistry(lifespan=lifespan, in_processes=True)
    tasks.task("t", run_in="process")(process_tasks.pid)
    with pytest.raises(TaskDefinitionError, match=r"its lifespan .*lifespan is defined inside of a function"):
        refuse_unreachable(tasks)

    tasks = TaskRegistry(lifespan=process_tasks.lifespan)
    for task in (tasks.task("t", run_in="process")(process_tasks.with_deps),):
        task.resolve()
    with pytest.raises(TaskDefinitionError, match="in_processes=True"):
        refuse_unreachable(tasks)


def test_in_processes_is_about_a_lifespan() -> None:
    """Without one it says nothing."""
    with pytest.raises(TaskDefinitionError, match="this registry has none"):
        TaskRegistry(in_processes=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("field", ["process_slots", "max_jobs_per_process", "max_process_rss"])
def test_the_settings_have_limits(field: str) -> None:
    """They may be left unsaid, and are refused out of range."""
    assert getattr(WorkerConfig(), field) is None
    with pytest.raises(ValueError, match=f"WorkerConfig.{field} = 0"):
        WorkerConfig(**{field: 0})
