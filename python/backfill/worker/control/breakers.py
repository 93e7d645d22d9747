"""The circuit breakers of tasks, as one worker sees them: the database decides whether one opens or closes.

A worker that has written a dead letter of a task with a breaker asks the database to open it if there are enough in the
whole fleet. While it is open, a limit lets no job of the task start, and after the pause one job at a time. Whoever
runs that one, the trial, tells the database how it ended, and this closes the breaker or opens it again. If that
message is lost, the breaker stays as it is, and the next trial's end does the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.controls import Control, ControlKind
from backfill.errors import BackfillError
from backfill.said import why
from backfill.storage.attempts import Attempt
from backfill.storage.backoff import Backoff
from backfill.storage.ration import Ration
from backfill.task import Task
from backfill.tasks import TaskRegistry
from backfill.worker.execution.endings import CANCELLED, COMPLETED, Ending, Failed, was_last
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.service import Service

logger = logging.getLogger(__name__)

CALLS_AT_ONCE: Final = 5
CALLS_PER_SECOND: Final = 3.0
"""How often a worker asks the database about its breakers, however many dead letters come."""
LAST_SECONDS: Final = 3.0
"""How long a worker that ends tries to tell what it has not told; less than a service has to stop."""
_TIMEOUT: Final = 10.0
_SLACK: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From when on PostgreSQL counts its microseconds."""
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class Breakers(Service):
    """Opens and closes the breakers of the tasks of one worker.

    It follows the controls, which say what stands, and is a listener of the settler.

    Args:
        client: the services' client.
        registry: the worker's tasks.
        broken: called with the names of the tasks whose breakers are open, whenever these may have changed.

    Attributes:
        standing: the open breakers of the worker's tasks, by the tasks' names.
    """

    def __init__(
        self, client: ServicesClient, registry: TaskRegistry[Any], *, broken: Callable[[frozenset[str]], None]
    ) -> None:
        super().__init__("breakers")
        self._client = client
        self._registry = registry
        self._broken = broken
        self._declared = {task.identifier: task for task in registry if task.breaker is not None}
        self.standing: dict[str, Control] = {}
        self._suspected = set[str]()
        self._trials: dict[str, tuple[Control, bool]] = {}
        self._own = set[int]()
        self._calling = ""
        self._unheard: Control | None = None
        self._wanted = asyncio.Event()
        self._ration = Ration(CALLS_AT_ONCE, CALLS_PER_SECOND)

    async def follow(self, controls: Sequence[Control]) -> None:
        """Take note of which breakers are open."""
        found = dict[str, Control]()
        for control in controls:
            if control.kind is ControlKind.BREAKER and control.task is not None:
                task = self._registry.get(control.task)
                if task is not None and task.identifier == control.task:
                    found[control.task] = control
        before, self.standing = self.standing, found
        self._broken(frozenset(name for task in found for name in _names(self._registry.get(task))))
        self._tell(before)

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Note which settled attempts have become dead letters, and which were trials."""
        if not self._declared and not self.standing:
            return
        for running in batch:
            ending = running.ending
            if ending is None or (ending is COMPLETED and not self.standing) or running in missing:
                continue
            task = self._registry.get(running.job.task_identifier)
            if task is not None:
                self._note(task, running, ending)

    def suspect(self) -> None:
        """Count the dead letters of all tasks with breakers: some were written that were not this worker's."""
        self._suspected.update(self._declared)
        if self._suspected:
            self._wanted.set()

    def _note(self, task: Task[Any, Any], running: HeldJob, ending: Ending) -> None:
        control = self.standing.get(task.identifier)
        if control is None:
            if task.breaker is not None and ending.may_be_last and was_last(running, ending):
                self._suspected.add(task.identifier)
                self._wanted.set()
        elif _is_trial(running, control):
            failed = isinstance(ending, Failed)
            if failed or (running.handler_started and not ending.goes_back and ending is not CANCELLED):
                self._trials[task.identifier] = control, failed
                self._wanted.set()

    async def _run(self) -> None:
        await self._until_stopped(self._report_for_ever())
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._report()
        except TimeoutError:
            pass  # other workers count what is there, and try the next job

    async def _report_for_ever(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():  # a cancellation may get lost in a wait for a connection
            await self._wanted.wait()
            await asyncio.sleep(self._ration.wait())
            self._ration.take()
            self._wanted.clear()
            if not (troubles := await self._report()):
                backoff.reset()
                continue
            self._wanted.set()
            logger.log(backoff.level(), "what concerns circuit breakers could not be told: %s", "; ".join(troubles))
            await backoff.wait(self._stopping)

    async def _report(self) -> list[str]:
        """Tell the database what it does not know yet; return what failed, which is told again."""
        troubles = list[str]()
        for task, (control, failed) in list(self._trials.items()):
            standing = self.standing.get(task)
            if standing is None or standing.id != control.id:
                del self._trials[task]  # somebody has opened or closed the breaker since
                continue
            try:
                await self._end_trial(control, failed=failed)
            except _TROUBLES as error:
                troubles.append(why(error))
            else:
                if self._trials.get(task) == (control, failed):
                    del self._trials[task]
        for name in list(self._suspected):
            self._suspected.discard(name)
            try:
                await self._trip(self._declared[name])
            except _TROUBLES as error:
                self._suspected.add(name)
                troubles.append(why(error))
        return troubles

    async def _trip(self, task: Task[Any, Any]) -> None:
        assert task.breaker is not None  # noqa: S101 - it is declared
        await self._opening(task.identifier, self._client.trip_breaker(task.identifier, _names(task), task.breaker))

    async def _end_trial(self, control: Control, *, failed: bool) -> None:
        assert control.task is not None  # noqa: S101 - it is one of a task
        asking = self._client.end_trial(control.task, control.id, failed=failed)
        if failed:
            await self._opening(control.task, asking)
        else:
            async with asyncio.timeout(_TIMEOUT):
                await asking

    async def _opening(self, task: str, asking: Coroutine[Any, Any, Control | None]) -> None:
        """Await a call that may open the breaker of a task; what it opens is not logged as somebody else's doing."""
        self._calling = task
        try:
            async with asyncio.timeout(_TIMEOUT):
                control = await asking
            if control is not None:
                self._own.add(control.id)
                logger.warning(
                    "task %s is paused in the whole fleet for %s: %s; then one job of it is tried",
                    task, _pause(control), control.reason, extra={"task": task, "trips": control.trips},
                )  # fmt: skip
        finally:
            self._calling = ""
            unheard, self._unheard = self._unheard, None
            if unheard is not None:
                self._hear(unheard)

    def _tell(self, before: Mapping[str, Control]) -> None:
        """Log which breakers others have opened, and which are closed, since the last look."""
        for task, control in self.standing.items():
            if task in before and before[task].id == control.id:
                continue
            if task == self._calling:
                self._unheard = control  # the call under way may have opened it
            else:
                self._hear(control)
        for task in before.keys() - self.standing.keys():
            logger.info("task %s runs again: its circuit breaker is closed", task, extra={"task": task})

    def _hear(self, control: Control) -> None:
        if control.id in self._own:
            self._own.discard(control.id)
            return
        logger.info(
            "task %s is paused in the whole fleet for %s by %s: %s", control.task, _pause(control), control.by,
            control.reason or "no reason given", extra={"task": control.task, "trips": control.trips},
        )  # fmt: skip


def _names(task: Task[Any, Any] | None) -> tuple[str, ...]:
    return () if task is None else (task.identifier, *task.aliases)


def _pause(control: Control) -> timedelta:
    """How long a breaker is open, to a hundredth of a second."""
    if control.until is None or control.said_at is None:
        return timedelta(0)
    return timedelta(seconds=round((control.until - control.said_at).total_seconds(), 2))


def _is_trial(running: HeldJob, control: Control) -> bool:
    """Whether an attempt was claimed after a breaker's pause, by the database's clock.

    A claim has the time at which its transaction began, which may be a little before the end of the pause. Other claims
    of the task come at the pause's beginning, if at all, from workers that have not heard of it yet.
    """
    claimed = running.job.locked_at_micros
    if claimed is None or control.until is None:
        return False
    since = control.until - min(_pause(control) / 2, _SLACK)
    return claimed >= (since - _EPOCH) // timedelta(microseconds=1)
