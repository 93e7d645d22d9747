"""What the tasks of a worker process say of jobs that are cut off: when to try them again, how long to keep their ends.

The supervisor recovers the jobs of a process that died, and does not import the program. So each worker process tells
it once what its tasks say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from backfill.batches import batches_in
from backfill.retry import RetryPolicy
from backfill.storage.recovery import CutOff, Next
from backfill.tasks import TaskRegistry
from backfill.worker.execution.policy import delay_of, retry_policy_of


@dataclass(frozen=True, slots=True)
class Policies:
    """What tasks say of the jobs that are cut off.

    Attributes:
        retry: the retry policies of tasks, as flags, by the tasks' names.
        keep: for how many seconds the ends of tasks' jobs are kept, by the tasks' names.
        batches: the names of the tasks whose jobs are batches.
        others: the names of all other tasks. Of a task in neither, nobody knows what its jobs are.
    """

    retry: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, float] = field(default_factory=dict)
    batches: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, registry: TaskRegistry[Any]) -> Self:
        """What the tasks of a registry say."""
        retry, keep = dict[str, str](), dict[str, float]()
        for task in registry:
            for name in (task.identifier, *task.aliases):
                if task.retry is not None:
                    retry[name] = task.retry.to_flag()
                if task.keep_seconds is not None:
                    keep[name] = task.keep_seconds
        names = frozenset(name for task in registry for name in (task.identifier, *task.aliases))
        batches = batches_in(registry)
        return cls(retry, keep, batches, names - batches)

    def line(self) -> bytes:
        """What the tasks say, as a line."""
        said = {
            "retry": dict(self.retry),
            "keep": dict(self.keep),
            "batches": sorted(self.batches),
            "others": sorted(self.others),
        }
        return json.dumps(said).encode() + b"\n"

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """What a line's object says."""
        return cls(dict(said["retry"]), dict(said["keep"]), frozenset(said["batches"]), frozenset(said["others"]))

    def next_of(self, job: CutOff) -> Next:
        """When a job that was cut off is tried again, and for how long its end is kept."""
        flag = self.retry.get(job.task_identifier)
        policy = retry_policy_of(job, None, None if flag is None else RetryPolicy.from_flag(flag))
        delay = None if policy is None else delay_of(policy, job.attempts)
        name = job.task_identifier
        is_batch = name in self.batches if name in self.batches | self.others else None
        return Next(delay, self.keep.get(name), is_batch)
