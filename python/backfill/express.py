"""Which tasks are express: their jobs are short enough to be run and deleted in the transaction that has picked them.

The decorator asks here whether a task can be one, and the worker asks for the names of those that are. docs/express.md
says what such a task gains and what it gives up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from backfill.errors import TaskDefinitionError


class MayBeExpress(Protocol):
    """What is asked of a task here; `Task` provides it."""

    identifier: str
    aliases: tuple[str, ...]
    express: bool


def express_in(tasks: Iterable[MayBeExpress]) -> frozenset[str]:
    """The names and aliases of those tasks that are express.

    Args:
        tasks: the tasks.
    """
    return frozenset(name for task in tasks if task.express for name in (task.identifier, *task.aliases))


def checked(identifier: str, express: object, *, is_async: bool, batch: bool, **others: object) -> bool:
    """Whether a task is express, if it can be.

    Args:
        identifier: the task's name, for the error.
        express: what was given.
        is_async: whether its handler is async.
        batch: whether its jobs are batches.
        others: the values of those of its other settings with which it cannot be express, by their names. Each of them
            is None if it was not given.

    Raises:
        TaskDefinitionError: `express` is no bool, or the task cannot be express.
    """
    if not isinstance(express, bool):
        raise TaskDefinitionError(f"task {identifier!r}: express = {express!r}: expected True or False")
    if not express:
        return False
    given = [(name, value) for name, value in others.items() if value is not None]
    for name, value in [*given, ("batch", True)] if batch else given:
        raise TaskDefinitionError(
            f"task {identifier!r}: express = True beside {name} = {value!r}: {_WHY[name]}; leave one of the two out"
        )
    if not is_async:
        raise TaskDefinitionError(
            f"task {identifier!r}: express = True: its handler is a plain function, which runs in a thread, and "
            "express jobs run on the event loop; write the handler as `async def`, or leave express out"
        )
    return True


_WHY = {
    "keep": "the end of an express job is not written anywhere, so it cannot be kept",
    "run_in": "an express job runs on the event loop",
    "limit": "a limit counts the jobs that are marked as running in their rows, and express jobs are not",
    "rate": "a rate counts jobs by what is written into their rows at their start, and express jobs start without",
    "batch": "what is left of a batch is written into its job's row, and an express job only deletes its row",
}
