"""Any order of pauses, resumptions and new jobs: what a worker knows to be paused does not start, and all runs once."""

from __future__ import annotations

from collections import Counter
from functools import partial
from operator import eq
from typing import Any, LiteralString

from hypothesis import example, given, settings

from backfill import BackfillClient, JobSpec, NewJob, Queue, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.periods import work_for
from plugins.waiting import wait_until
from reading import rows, value
from strategies import pause_steps

LEFT: LiteralString = "select count(*) from graphile_worker._private_jobs"
CLEAR: LiteralString = (
    "delete from graphile_worker._private_jobs; delete from graphile_worker.backfill_control where kind is not null"
)


class Watched:
    """Two tasks whose handlers note what they see."""

    def __init__(self) -> None:
        self.runner: WorkerRunner | None = None
        self.runs: Counter[Any] = Counter()
        self.wrong: list[tuple[str, frozenset[str]]] = []
        self.tasks: TaskRegistry[None] = TaskRegistry()
        for name in ("a", "b"):
            self.tasks.task(name)(self._handler(name))

    def ran(self, name: str) -> int:
        """How many attempts of a task began."""
        return sum(count for (task, _), count in self.runs.items() if task == name)

    def _handler(self, name: str) -> Any:
        async def handler(number: int) -> None:
            assert self.runner is not None
            assert self.runner._parts is not None
            if name in (paused := self.runner._parts.one.pauses.tasks):
                self.wrong.append((name, paused))
            self.runs[name, number] += 1
            await work_for(0.001 * (number % 3))

        return handler


def _meant(what: str) -> dict[str, Any]:
    return {"everything": True} if what == "all" else {"task": what}


@given(steps=pause_steps)
@example(steps=[("pause", "a", 0), ("add", "a", 30), ("pause", "all", 0), ("resume", "a", 0), ("resume", "all", 0)])
@settings(max_examples=6)
async def test_a_worker_runs_all_but_what_is_paused(dsn: str, steps: list[tuple[str, str, int]]) -> None:
    """In each state what may run does run, also beside paused jobs, and in the end all has run once."""
    await rows(dsn, CLEAR)
    watched, standing, added = Watched(), set[str](), Counter[str]()
    lanes = [QueueConfig("first", 1, tasks="a"), QueueConfig.default_queue(3)]
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, queues=lanes), watched.tasks) as runner:
        watched.runner = runner
        for step, what, number in steps:
            if step == "pause":
                await client.pause(**_meant(what))
                standing.add(what)
            elif step == "resume":
                await client.resume(**_meant(what))
                standing.discard(what)
            else:
                queue = Queue.serial("q") if number % 2 else Queue.parallel()
                first, added[what] = added[what], added[what] + number
                await client.enqueue_bulk(
                    [NewJob(what, place, JobSpec(queue=queue)) for place in range(first, first + number)]
                )
            for name in () if "all" in standing else {"a", "b"} - standing:
                await wait_until(partial(watched.ran, name), partial(eq, added[name]))
        for what in ("a", "b", "all"):
            await client.resume(**_meant(what))
        await wait_until(lambda: value(dsn, LEFT), lambda left: left == 0)
    assert watched.wrong == []
    assert watched.runs == Counter({(name, number): 1 for name in added for number in range(added[name])})
