"""The executor, without a database: what becomes of jobs that are held and not this worker's any more."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerContext
from backfill.records import Job
from backfill.worker.execution.endings import GIVEN_BACK
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob, HeldJobs
from backfill.worker.lanes.making import make_lanes
from backfill.worker.pipeline.settler import Settler

from plugins.periods import work_for
from plugins.waiting import Eventually


async def test_a_job_that_is_lost_before_it_begins_never_begins(eventually: Eventually) -> None:
    """It leaves the lane, and what is left runs in order."""
    began, release, ended = list[int](), asyncio.Event(), list[HeldJob]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(number: int) -> None:
        began.append(number)
        await release.wait()

    [lane] = make_lanes((QueueConfig.default_queue(1),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
    executor.ended, executor.thirsty = ended.append, lambda: None
    jobs = [Job(id=n, task_identifier="t", payload_bytes=b"%d" % n, attempts=1, locked_at_micros=1) for n in range(4)]
    executor.hold(jobs, lane)
    await eventually(lambda: began)
    lost: list[Any] = [executor.held[2], executor.held[0]]
    executor.held.lose(lost[0])
    assert [(one.job.id, one.ending) for one in ended] == [(2, GIVEN_BACK)]
    release.set()
    executor.held.lose(lost[1])  # it runs: its handler is cancelled
    await eventually(lambda: len(ended) == 4)
    assert began == [0, 1, 3]
    assert [one.job.id for one in ended if one.ending is GIVEN_BACK] == [2, 0]
    executor.close()


async def test_nothing_begins_while_the_lease_is_over(eventually: Eventually) -> None:
    """What is claimed waits until a heartbeat got through; then all of it runs, in order."""
    began, ended = list[int](), list[HeldJob]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(number: int) -> None:
        began.append(number)

    [lane] = make_lanes((QueueConfig.default_queue(2),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
    executor.ended, executor.thirsty = ended.append, lambda: None
    until = [0.0]
    executor.leased_until, executor.renew_lease = 0.0, lambda: until[0]
    jobs = [Job(id=n, task_identifier="t", payload_bytes=b"%d" % n, attempts=1, locked_at_micros=1) for n in range(5)]
    executor.hold(jobs, lane)
    assert (began, len(lane.ready)) == ([], 5)
    executor.go_on()
    assert began == []
    until[0] = time.monotonic() + 60
    executor.go_on()
    await eventually(lambda: len(ended) == 5)
    assert began == [0, 1, 2, 3, 4]
    executor.close()


async def test_a_handler_is_cancelled_once(eventually: Eventually) -> None:
    """One whose job is lost, and whose worker then lets go of all, can end in order: its clean-up is left alone."""
    steps, ended = list[str](), list[HeldJob]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("cancelled")
            await work_for(0.05)  # a rollback, say
            steps.append("in order")

    [lane] = make_lanes((QueueConfig.default_queue(1),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
    executor.ended, executor.thirsty = ended.append, lambda: None
    executor.hold([Job(id=1, task_identifier="t", payload_bytes=b"1", attempts=1, locked_at_micros=1)], lane)
    await eventually(lambda: executor.held[1].handler_started)
    executor.held.lose(executor.held[1])
    await eventually(lambda: steps)
    await executor.drain(0)
    assert steps == ["cancelled", "in order"]
    assert [one.ending for one in ended] == [GIVEN_BACK]
    executor.close()


async def test_a_large_payload_is_let_go_when_its_attempt_ends(eventually: Eventually) -> None:
    """While its end waits to be written; the handler's own job keeps what it has, and light payloads are left alone."""
    ended, seen = list[HeldJob](), list[Job]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(text: str, ctx: WorkerContext[None]) -> None:
        seen.append(ctx.job)

    [lane] = make_lanes((QueueConfig.default_queue(1),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
    settler = Settler(
        executor,
        schema="graphile_worker",
        worker="w",
        settled=lambda: None,
        listeners=(),
        look_soon=lambda: None,
    )

    def settle(running: HeldJob) -> None:
        settler.add(running)
        ended.append(running)

    executor.ended, executor.thirsty = settle, lambda: None
    for number, size in enumerate((10, 10_000)):
        payload = b'"%s"' % (b"x" * size)
        lane.note_payloads(1, len(payload))
        executor.hold([Job(id=number, task_identifier="t", payload_bytes=payload, locked_at_micros=1, key="k")], lane)
        await eventually(lambda: lane.free == 1 and not lane.ready)
    assert [len(one.job.payload_bytes) for one in ended] == [12, 2]
    assert [len(job.payload_bytes) for job in seen] == [12, 10_002]
    assert [(one.job.id, one.job.key, one.job.task_identifier) for one in ended] == [(0, "k", "t"), (1, "k", "t")]
    executor.close()


def test_held_jobs_are_added_released_and_lost() -> None:
    """A release lets go of the attempts in it and of no later one of the same job.

    A loss is told, and releases nothing.
    """
    [lane] = make_lanes((QueueConfig.default_queue(1),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    first, second, again = (
        HeldJob(Job(id=number, task_identifier="t", payload_bytes=b"1", attempts=attempts, locked_at_micros=1), lane)
        for number, attempts in ((1, 1), (2, 1), (1, 2))
    )
    told = list[HeldJob]()
    held = HeldJobs(told.append)
    held.add([first, second])
    held.add([again])
    held.release([first])
    assert (dict(held), held.lanes) == ({1: again, 2: second}, {lane})
    held.lose(second)
    assert (told, second.lost, second.stopping, 2 in held) == ([second], True, True, True)
    held.release([second, again, again])
    assert (len(held), held.lanes) == (0, set())


async def test_the_attempt_under_way_is_known_to_any_thread(eventually: Eventually) -> None:
    """In its first step and after it has waited; not while it waits, and not that of another job meanwhile."""
    seen, release = list[tuple[int, int | None]](), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    def look(number: int) -> None:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(executor.under_way).result()
        seen.append((number, None if running is None else running.job.id))

    @tasks.task("t")
    async def handler(number: int) -> None:
        look(number)
        await release.wait()
        look(number)

    [lane] = make_lanes((QueueConfig.default_queue(2),), schema="graphile_worker", tasks=("t",), forbidden_flags=())
    executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
    ended = list[HeldJob]()
    executor.ended, executor.thirsty = ended.append, lambda: None
    jobs = [Job(id=n, task_identifier="t", payload_bytes=b"%d" % n, locked_at_micros=1) for n in (1, 2)]
    executor.hold(jobs, lane)
    await eventually(lambda: len(seen), lambda count: count == 2)
    look(0)
    release.set()
    await eventually(lambda: len(ended), lambda count: count == 2)
    executor.close()
    assert seen == [(1, 1), (2, 2), (0, None), (1, 1), (2, 2)]
