"""Finds out, before a worker starts, whether its child processes can find all that their handlers need by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backfill.errors import TaskDefinitionError
from backfill.importable import fault_of, is_found, reference_to
from backfill.middleware import is_async, name_of
from backfill.task import Task
from backfill.tasks import TaskRegistry


def refuse_unreachable(registry: TaskRegistry[Any]) -> None:
    """Refuse a registry with a handler that a child process could not find, or that would lack something there.

    Raises:
        TaskDefinitionError: a handler, a synchronous middleware around one, or the lifespan cannot be imported by its
            name; or a handler expects `ctx.deps`, and the lifespan does not run in child processes.
    """
    tasks = [task for task in registry if task.shape.in_process]
    for task in tasks:
        where = f'task {task.identifier!r}: run_in = "process"'
        if not is_found(task.handler, as_part_of=_handler_of):
            raise TaskDefinitionError(
                f"{where}: {reference_to(task.handler)} is another object than its handler, or it is not there; a "
                "child process imports the handler by this name, so keep the name, and give it to nothing else"
            )
        for function in registry.middleware_of(task):
            if not is_async(function):
                _refuse(function, f"{where}: its middleware {name_of(function)}", "write it as `async def`, or ")
        if task.deps_name is not None and not registry.in_processes:
            raise TaskDefinitionError(
                f"{where}: its handler expects ctx.deps of type {task.deps_name}, and the lifespan that makes them "
                "runs in the worker only; make the registry by TaskRegistry(lifespan=..., in_processes=True)"
            )
    if tasks and registry.in_processes and registry.lifespan is not None:
        _refuse(registry.lifespan, f"registry: its lifespan {name_of(registry.lifespan)}", "")


def _refuse(function: Callable[..., Any], what: str, way: str) -> None:
    fault = fault_of(function)
    if fault is None and not is_found(function):
        fault = "is not what its module has under this name"
    if fault is not None:
        raise TaskDefinitionError(
            f"{what} {fault}, so a child process cannot import it; {way}define it by `def` at the top level of a "
            "module that can be imported"
        )


def _handler_of(found: object) -> object:
    """The handler, where a module has the task under the handler's name, as the decorator leaves it."""
    return found.handler if isinstance(found, Task) else found
