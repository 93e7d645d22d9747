"""Keeps the jobs of paused tasks from being claimed and started, and logs when a pause begins or ends.

What is paused stands in the table of control. The pauses of serial queues are not looked at here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from backfill.controls import Control, ControlKind
from backfill.tasks import TaskRegistry

logger = logging.getLogger(__name__)


class Pauses:
    """Knows which tasks are paused.

    Args:
        registry: the worker's tasks, with their aliases.
        pause: called with the names of the paused tasks whenever they may be others than before.

    Attributes:
        standing: the pauses of tasks of this worker and of everything, by their subjects.
        tasks: the names of this worker's tasks that are paused, aliases included.
    """

    def __init__(self, registry: TaskRegistry[Any], *, pause: Callable[[frozenset[str]], None]) -> None:
        self._registry = registry
        self._pause = pause
        self.standing: dict[str, Control] = {}
        self.tasks = frozenset[str]()

    @property
    def are_all(self) -> bool:
        """Whether all tasks of this worker are paused, so that it starts no job."""
        return bool(self.standing) and self.tasks.issuperset(self._registry.identifiers())

    async def follow(self, controls: Sequence[Control]) -> None:
        """Pause the tasks of which it is said."""
        pauses = [control for control in controls if control.kind is ControlKind.PAUSE]
        names = {control.subject: self._names(control) for control in pauses}
        self.tasks = frozenset[str]().union(*names.values())
        before, self.standing = self.standing, {one.subject: one for one in pauses if names[one.subject]}
        self._tell(before)
        self._pause(self.tasks)

    def _names(self, control: Control) -> frozenset[str]:
        """The names of this worker's tasks that a pause means: a task's own name means its aliases too."""
        if control.everything:
            return frozenset(self._registry.identifiers())
        task = None if control.task is None else self._registry.get(control.task)
        if task is None or control.task is None:
            return frozenset()
        if control.task == task.identifier:
            return frozenset({task.identifier, *task.aliases})
        return frozenset({control.task})

    def _tell(self, before: dict[str, Control]) -> None:
        """Log which pauses have begun and which have ended since the last look."""
        for subject, control in self.standing.items():
            if subject not in before or before[subject].id != control.id:
                logger.info("%s is paused by %s", _named(control), said_by(control))
        for subject, control in before.items():
            if subject not in self.standing:
                logger.info("%s is paused no more; it was paused by %s", _named(control), said_by(control))


def _named(control: Control) -> str:
    return f"task {control.task}" if control.task is not None else control.subject


def said_by(control: Control) -> str:
    """Who said it, and why, in one line."""
    said = f"{control.by}: {control.reason}" if control.reason else control.by
    return " ".join(said.split())
