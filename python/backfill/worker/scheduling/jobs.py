"""Makes the jobs of runs: their payload and settings, as the item, its task and the worker's plugins say."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any, Final

from backfill.client.prepare import JobShape, shape_of, with_defaults
from backfill.client.scheduling import Scheduling
from backfill.cron.due import DueRun
from backfill.cron.runs import due_at
from backfill.cron.schedule import Overlap, Schedule
from backfill.errors import InvalidPayloadError, JobScheduleRefusedError
from backfill.hooks.registry import HookRegistry
from backfill.jobs import UNSAID, JobSpec, NewJob, Queue
from backfill.payloads import encode
from backfill.payloads.scheduled import RUN_KEY, Run, mark_of, run_of, with_run
from backfill.storage.schedules import NewRun
from backfill.task import Task
from backfill.tasks import TaskRegistry

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 10.0
"""How long the interceptors of one job may take, since all other runs wait meanwhile."""


class JobMaker:
    """Makes the jobs of runs.

    Args:
        registry: the tasks of the worker, whose defaults apply where an item says nothing.
        hooks: the callbacks of the worker's plugins; the interceptors of BeforeJobSchedule are asked about each job.
    """

    def __init__(self, registry: TaskRegistry[Any], hooks: HookRegistry) -> None:
        self._registry = registry
        self._scheduling = Scheduling.of(hooks)

    @property
    def asks(self) -> bool:
        """Whether plugins are asked about jobs."""
        return self._scheduling is not None

    async def make(self, schedule: Schedule, run: DueRun, revision: int) -> NewRun:
        """Make the job of a run. If an interceptor refuses it, the run is done with, but no job is added for it.

        Args:
            schedule: the item.
            run: the run.
            revision: that of what operators said of the item.

        Raises:
            TimeoutError: the interceptors did not answer in time.
            Exception: what an interceptor raised, or what is wrong with the payload that it answered with.
        """
        mark = Run(run.at, run.backfilled)
        payload = {**(schedule.payload or {}), RUN_KEY: mark_of(mark)}
        spec = spec_of(schedule, run)
        defaults, attempts = self._defaults(schedule)

        def settled(job: NewJob[Any]) -> tuple[JobSpec, JobShape]:
            whole = with_defaults(job.spec, defaults)
            return whole, shape_of(job.task, whole, attempts)

        job: NewJob[Any] = NewJob(schedule.task, payload, spec)
        refused = False
        if self._scheduling is None:
            shape, encoded = settled(job)[1].written(payload)
        else:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._scheduling.ask(job, settled, schedule.identifier)
            refused = isinstance(answer, JobScheduleRefusedError)
            if isinstance(answer, JobScheduleRefusedError):
                logger.warning("recurring job %r: its run at %s is left out: %s", schedule.identifier, run.at, answer)
                shape, encoded = settled(job)[1].written(payload)
            else:
                shape, encoded = answer
        return NewRun(
            identifier=schedule.identifier,
            run=run.at,
            revision=revision,
            overlap_skip=schedule.overlap is Overlap.SKIP,
            refused=refused,
            task=shape.task,
            payload=_marked(encoded, mark),
            run_at=shape.run_at or run.at,
            queue=shape.queue,
            max_attempts=shape.max_attempts,
            priority=shape.priority,
            job_key=shape.key,
            job_key_mode=None if shape.key is None else shape.mode,
            flags=shape.flags,
        )

    def _defaults(self, schedule: Schedule) -> tuple[JobSpec, int | None]:
        """The settings that the task gives its jobs, and the runs that its retry policy allows, if it is known."""
        task = self._registry.get(schedule.task)
        if task is None:
            return UNSAID, None
        defaults = _defaults_of(task, schedule)
        if defaults.unique_for is not None:  # a run is added once in any case, and reserves nothing
            defaults = replace(defaults, unique_for=None)
        return defaults, task.default_max_attempts


def spec_of(schedule: Schedule, run: DueRun) -> JobSpec:
    """What an item says of the job of a run."""
    return JobSpec(
        run_at=due_at(schedule, run.at),
        priority=schedule.priority,
        queue=None if schedule.queue is None else Queue.serial(schedule.queue),
        max_attempts=schedule.max_attempts,
        job_key=schedule.job_key,
        job_key_mode=schedule.job_key_mode,
    )


def _defaults_of(task: Task[Any, Any], schedule: Schedule) -> JobSpec:
    """The settings of a task's jobs; its queue and its key may depend on the payload, read as the handler reads it.

    If that fails, the task's other settings apply: the job is added all the same, since its handler may be the better
    place to fail.
    """
    if task.queue_of is None and task.key_of is None:
        return task.defaults
    try:
        payload = task.decode(encode(schedule.payload))
        return task.defaults_for(payload, keyed=schedule.job_key is not None)
    except Exception as error:  # noqa: BLE001 - the task's own function may raise anything
        logger.warning(
            "recurring job %r: the queue or key of task %r cannot be told from its payload (%s); its jobs have none",
            schedule.identifier, task.identifier, type(error).__qualname__,
        )  # fmt: skip
        return task.defaults


def _marked(encoded: bytes, mark: Run) -> bytes:
    """A payload that says which run its job is for, also where an interceptor has left that out.

    Raises:
        InvalidPayloadError: the payload is no object.
    """
    if not encoded.startswith(b"{"):
        limit = f"an object, since the payload of a recurring job has the key {RUN_KEY} (a plugin has replaced it)"
        raise InvalidPayloadError("payload", None, limit)
    return encoded if run_of(encoded) == mark else with_run(encoded, mark)
