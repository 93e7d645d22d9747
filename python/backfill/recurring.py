"""What of a registry is about recurring jobs: the schedules that it declares.

A worker of the registry declares them to the fleet, and the fleet's schedulers add their jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from backfill.cron.declared import CrontabSource, Declared, schedules_of
from backfill.cron.schedule import Dst, Missed, Overlap, Schedule
from backfill.errors import TaskDefinitionError
from backfill.task import Task

if TYPE_CHECKING:
    from backfill.specs import JobKeyMode

H = TypeVar("H", bound=Callable[..., Any])

_NONE = timedelta(0)


class Recurring:
    """The part of a registry that knows its schedules.

    Args:
        crontab: the first schedules: the text of a crontab, or `Schedule` objects.

    Raises:
        CrontabParseError: the text cannot be read.
        TaskDefinitionError: two schedules have one identifier, or `crontab` is something else.
    """

    def __init__(self, crontab: CrontabSource = ()) -> None:
        self._declared = Declared()
        self._undecorated: list[tuple[Callable[..., Any], Callable[[str], Schedule]]] = []
        self._also(crontab, "crontab=")

    def get(self, identifier: str) -> Task[Any, Any] | None:
        """The task of that name or alias, or None."""
        raise NotImplementedError

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules that were declared so far, in their order.

        Raises:
            TaskDefinitionError: `cron` decorates a function that is no handler of this registry.
        """
        for function, _ in self._undecorated:
            raise TaskDefinitionError(
                f"cron: {_name(function)} is not a handler of this registry's tasks; put @tasks.cron(...) directly "
                "above or below @tasks.task(...) of the same registry"
            )
        return tuple(self._declared)

    def schedule(self, *crontabs: Schedule | CrontabSource) -> None:
        """Declare schedules, either all or none of them.

        Args:
            crontabs: `Schedule` objects, texts of crontabs with any number of lines, or lists of `Schedule` objects.

        Raises:
            CrontabParseError: a text cannot be read.
            TaskDefinitionError: two schedules have one identifier, or an argument is something else.

        Example:
            >>> from backfill import TaskRegistry
            >>> from backfill.cron import Schedule
            >>> tasks = TaskRegistry()
            >>> tasks.schedule(Schedule("report", "0 4 * * *"), "*/10 * * * * sync ?fill=1h")
            >>> [schedule.identifier for schedule in tasks.schedules]
            ['report', 'sync']
        """
        added = list[Schedule]()
        for crontab in crontabs:
            added += [crontab] if isinstance(crontab, Schedule) else schedules_of(crontab)
        self._also(added, "tasks.schedule")

    def cron(
        self,
        when: str | None = None,
        *,
        every: timedelta | None = None,
        id: str = "",
        tz: str = "UTC",
        dst: Dst = Dst.ONCE,
        payload: Any = None,
        fill: timedelta = _NONE,
        max_attempts: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
        jitter: timedelta = _NONE,
        overlap: Overlap = Overlap.ALLOW,
        missed: Missed = Missed.ALL,
    ) -> Callable[[H], H]:
        """Declare a schedule of the decorated task; it stands directly above or below `@tasks.task(...)`.

        A task may have several schedules; each but one needs an `id`. The arguments mean what they mean for `Schedule`.

        Args:
            when: minute, hour, day of the month, month and day of the week, such as "30 4 * * mon-fri", or "@daily".
            every: the distance between runs instead of `when`, in whole seconds.
            id: what tells the schedule from all others; the task's identifier if not given.
            tz: the zone whose clocks `when` is compared with, such as Europe/Berlin.
            dst: what happens on the days on which that zone's clocks change.
            payload: the payload of the jobs: an object, or a value of the class that the handler takes.
            fill: how far back missed runs are made up for; 0 for not at all.
            max_attempts: the number of all runs of a job; the task's if not given.
            queue: the name of a serial queue; the task's if not given.
            priority: lower runs first; the task's if not given.
            job_key: the key of the jobs.
            job_key_mode: REPLACE, which is the default where a key is given, or PRESERVE_RUN_AT.
            jitter: the longest time by which a job may begin later than its run.
            overlap: what happens if the job of the run before still waits or runs.
            missed: which missed runs within `fill` are made up for.

        Raises:
            CrontabParseError: `when` cannot be read.
            InvalidPayloadError: the payload is not written as an object, or JSON cannot hold it.
            InvalidJobError: another argument cannot be used; the message names it and the limit.
            TaskDefinitionError: the identifier is taken, or what is decorated is no task of this registry.

        Example:
            >>> from backfill import TaskRegistry
            >>> tasks = TaskRegistry()
            >>> @tasks.cron("30 4 * * mon-fri", tz="Europe/Berlin")
            ... @tasks.task("report")
            ... async def report() -> None: ...
            >>> print(*tasks.schedules)
            30 4 * * 1-5 report ?tz=Europe/Berlin
        """
        if when is not None and not isinstance(when, str):
            raise TaskDefinitionError('say when: @tasks.cron("0 4 * * *"), not @tasks.cron')
        settled = Schedule(
            "_", when, every=every, identifier=id, timezone=tz, dst=dst, payload=payload, fill=fill,
            max_attempts=max_attempts, queue=queue, priority=priority, job_key=job_key, job_key_mode=job_key_mode,
            jitter=jitter, overlap=overlap, missed=missed,
        )  # fmt: skip
        make = partial(_of_task, settled, id)

        def declare(handler: H) -> H:
            found: object = handler
            if not isinstance(found, Task):
                if not callable(found):
                    raise TaskDefinitionError(f"cron: {found!r} is no function, and no task")
                self._undecorated.append((handler, make))
            elif self.get(found.identifier) is not found:
                raise TaskDefinitionError(
                    f"cron: {found!r} is a task of another registry; use that registry's @tasks.cron, or "
                    "tasks.schedule(Schedule(...))"
                )
            else:
                self._declare(found, make(found.identifier))
            return handler

        return declare

    def with_schedules(self, crontab: CrontabSource, where: str) -> Self:
        """A copy of the registry that declares more schedules; this one stays as it is.

        Args:
            crontab: the text of a crontab, or `Schedule` objects.
            where: who declares them, such as the name of a file; messages show it.

        Raises:
            CrontabParseError: the text cannot be read.
            TaskDefinitionError: two schedules have one identifier.
        """
        other = copy(self)
        other._also(crontab, where)  # noqa: SLF001 (another one of this class)
        return other

    def _also(self, crontab: CrontabSource, where: str) -> None:
        """Declare schedules, in a copy of what was declared so far: copies of the registry may have the same."""
        declared = self._declared.copy()
        declared.add(schedules_of(crontab), where)
        self._declared = declared

    def _decorated(self, task: Task[Any, Any]) -> None:
        """Declare the schedules that stand below the decorator that has made a task, the lowest first."""
        mine = [make for function, make in self._undecorated if function is task.handler]
        self._undecorated = [one for one in self._undecorated if one[0] is not task.handler]
        for make in mine:
            self._declare(task, make(task.identifier))

    def _declare(self, task: Task[Any, Any], schedule: Schedule) -> None:
        self._also([schedule], f"@tasks.cron above or below {_name(task.handler)}")

    def _with_those_of(self, other: Recurring, prefix: str) -> Declared:
        """The schedules of this registry and of another one, whose tasks are included here under a prefix."""
        schedules = other.schedules
        if prefix:
            schedules = tuple(
                replace(
                    one,
                    task=one.task if other.get(one.task) is None else prefix + one.task,
                    identifier=prefix + one.identifier,
                )
                for one in schedules
            )
        declared = self._declared.copy()
        declared.add(schedules, f"an included registry{f', under the prefix {prefix!r}' if prefix else ''}")
        return declared


def _of_task(schedule: Schedule, identifier: str, task: str) -> Schedule:
    """A schedule that was checked before its task was known."""
    return replace(schedule, task=task, identifier=identifier)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))
