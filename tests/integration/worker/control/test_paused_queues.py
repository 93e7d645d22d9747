"""Workers and paused serial queues: which jobs start, which go back, and how soon work goes on after a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    BeforeJobRun,
    Continue,
    Control,
    Discard,
    HookRegistry,
    Queue,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.periods import let_pass
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
HEARD = 3.0
"""Seconds within which what is promised within one second happens."""
LANE = Queue.serial("lane")
AT_ONCE = RetryPolicy(9, timedelta(0), timedelta(0), 1.0, 0.0)
UNLOCK: LiteralString = f"update {QUEUES} set locked_by = null, locked_at = null where queue_name = 'lane'"
UNTOUCHED: LiteralString = f"select count(*) from {JOBS} where attempts = 0 and locked_at is null"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def holder(dsn: str) -> Any:
    """Who has locked the queue."""
    return await value(dsn, f"select locked_by from {QUEUES} where queue_name = 'lane'")


class Work:
    """A task whose jobs wait until they are let go and then end as their payload says.

    Attributes:
        began: the payloads of the attempts that have begun, in order.
        go_on: set where attempts need not wait.
        tasks: the registry with the task.
    """

    def __init__(self) -> None:
        self.began: list[str] = []
        self.go_on = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.tasks.task("t", retry=AT_ONCE)(self._run)

    async def _run(self, how: str, ctx: WorkerContext[None]) -> None:
        self.began.append(how)
        await self.go_on.wait()
        if how == "fails" and ctx.attempt == 1:
            raise ValueError(how)
        if how == "is snoozed" and self.began.count(how) == 1:
            raise Snooze(timedelta(0))
        if how == "is discarded":
            raise Discard("it is enough")


async def test_no_job_of_a_paused_queue_starts(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """Neither in a worker that runs already nor in one that starts later; other jobs run."""
    work = Work()
    work.go_on.set()
    await client.pause(queue="lane")
    async with WorkerRunner(WorkerConfig(dsn), work.tasks):
        await client.enqueue("t", "held", queue=LANE)
        await client.enqueue("t", "parallel")
        await client.enqueue("t", "other", queue=Queue.serial("other"))
        await eventually(lambda: sorted(work.began) == ["other", "parallel"])
        await let_pass(0.5)
        assert sorted(work.began) == ["other", "parallel"]
    assert await WorkerRunner(WorkerConfig(dsn), work.tasks).process_available_jobs() == 0
    await client.resume(queue="lane")
    assert await WorkerRunner(WorkerConfig(dsn), work.tasks).process_available_jobs() == 1
    assert await holder(dsn) is None


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("how", ["completes", "fails", "is snoozed", "is discarded"])
async def test_a_running_job_runs_on_and_none_follows_it(
    dsn: str, client: BackfillClient, eventually: Eventually, how: str, blocks: bool
) -> None:
    """However its attempt ends, its queue is locked again with that; after the pause all is as before."""
    work = Work()
    job = await client.enqueue("t", how, queue=Queue.serial("lane", block_on_retry=blocks))
    await client.enqueue("t", "follows", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn), work.tasks) as runner:
        await eventually(lambda: work.began)
        await client.pause(queue="lane")
        await eventually(lambda: bool(runner._parts.one.executor.paused_queues))
        work.go_on.set()
        waits = blocks and how in ("fails", "is snoozed")
        await eventually(lambda: holder(dsn), lambda found: str(found).startswith("backfill:pause"))
        assert await holder(dsn) == (f"backfill:pause:{job.id}" if waits else "backfill:pause")
        await let_pass(0.3)
        assert work.began == [how]
        await client.resume(queue="lane")
        await eventually(lambda: "follows" in work.began, timeout=HEARD)
        if waits:
            assert work.began == [how, how, "follows"]
        await eventually(lambda: value(dsn, f"select count(*) = 0 from {JOBS}"))
    assert await holder(dsn) is None


async def test_the_end_of_a_job_locks_its_queue_though_no_job_follows(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The settlement does so itself, and does not leave it to a later claim."""
    work = Work()
    await client.enqueue("t", "completes", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn), work.tasks) as runner:
        await eventually(lambda: work.began)
        await client.pause(queue="lane")
        await eventually(lambda: bool(runner._parts.one.executor.paused_queues))
        work.go_on.set()
        await eventually(lambda: value(dsn, f"select count(*) = 0 from {JOBS}"))
        assert await holder(dsn) == "backfill:pause"


async def test_a_cancelled_job_leaves_its_queue_paused(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The job at the head runs when its queue is paused, and is cancelled then."""
    work = Work()
    job = await client.enqueue("t", "head", queue=LANE)
    await client.enqueue("t", "follows", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn), work.tasks) as runner:
        await eventually(lambda: work.began)
        await client.pause(queue="lane")
        await eventually(lambda: bool(runner._parts.one.executor.paused_queues))
        await client.cancel(job)
        await eventually(lambda: holder(dsn), lambda found: found == "backfill:pause")
    assert work.began == ["head"]


async def test_claimed_jobs_that_have_not_started_go_back(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """They are ready in the worker, or wait for an interceptor, when the pause is heard."""
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow:
        """Is asked before each job, and takes its time."""

        def register(self, hooks: HookRegistry) -> None:
            """Register for the time before a job."""
            hooks.on(BeforeJobRun, self.before)

        async def before(self, _: BeforeJobRun) -> Continue:
            """Wait until the test lets it go on."""
            asked.set()
            await answer.wait()
            return Continue()

    work = Work()
    work.go_on.set()
    await client.enqueue("t", "asked", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn, concurrency=1), work.tasks, plugins=[Slow()]):
        await asked.wait()
        await client.pause(queue="lane")
        await eventually(lambda: holder(dsn), lambda found: found == "backfill:pause", timeout=HEARD)
        answer.set()
        await let_pass(0.2)
    assert work.began == []
    assert await value(dsn, UNTOUCHED) == 1


async def test_a_queue_that_somebody_unlocked_is_locked_again_by_a_claim(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The worker gives the job back unstarted, with all its attempts, and locks the queue; again and again."""
    work = Work()
    work.go_on.set()
    await client.pause(queue="lane")
    await client.enqueue("t", "held", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn, poll_interval=timedelta(milliseconds=50)), work.tasks):
        for _ in range(5):
            await rows(dsn, UNLOCK)
            await eventually(lambda: holder(dsn), lambda found: found == "backfill:pause")
            await eventually(lambda: value(dsn, UNTOUCHED))
        assert work.began == []
        await client.resume(queue="lane")
        await eventually(lambda: work.began == ["held"], timeout=HEARD)
    assert await holder(dsn) is None


async def test_a_worker_that_has_not_heard_of_the_end_locks_no_queue(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Its settlement finds that the pause does not stand, so the worker learns of the end by that."""
    work = Work()
    await client.enqueue("t", "head", queue=LANE)
    async with WorkerRunner(WorkerConfig(dsn), work.tasks) as runner:
        await eventually(lambda: work.began)
        executor = runner._parts.one.executor
        executor.paused_queues.know({"lane": await value(dsn, f"select id from {QUEUES}")})
        work.go_on.set()
        await eventually(lambda: not executor.paused_queues)
        assert await holder(dsn) is None
        await client.enqueue("t", "next", queue=LANE)
        await eventually(lambda: work.began == ["head", "next"], timeout=HEARD)


async def test_a_resumed_queue_starts_soon_behind_many_paused_jobs(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Its job is behind 20,000 jobs of 2,000 queues that stay paused, where a look at all queues is seldom."""
    await client.enqueue_bulk("t", ["held"], queue=Queue.serial("last"))
    await rows(
        dsn, "select graphile_worker.backfill_say('pause', 'queue:p' || n, '{}') from generate_series(1, 2000) as n"
    )
    await client.pause(queue="last")
    await rows(
        dsn,
        f"insert into {JOBS} (task_id, job_queue_id, run_at) "
        f"select (select max(task_id) from {JOBS}), id, now() - interval '1 hour' from {QUEUES}, "
        "generate_series(1, 10) where queue_name like 'p%%'",
    )
    work = Work()
    work.go_on.set()
    async with WorkerRunner(WorkerConfig(dsn), work.tasks):
        await let_pass(1.0)
        assert work.began == []
        await client.resume(queue="last")
        await eventually(lambda: work.began == ["held"], timeout=HEARD)


async def test_a_workers_role_heeds_and_an_operators_role_pauses(
    dsn: str, role: NewRole, eventually: Eventually
) -> None:
    """Each with its printed grants and no others."""
    work = Work()
    async with BackfillClient(role("operator")) as operator, BackfillClient(role("producer")) as producer:
        await producer.enqueue("t", "head", queue=LANE)
        await producer.enqueue("t", "follows", queue=LANE)
        async with WorkerRunner(WorkerConfig(role("worker")), work.tasks) as runner:
            await eventually(lambda: work.began)
            await operator.pause(queue="lane")
            await eventually(lambda: bool(runner._parts.one.executor.paused_queues))
            work.go_on.set()
            await eventually(lambda: holder(dsn), lambda found: found == "backfill:pause")
            await rows(dsn, UNLOCK)
            await runner._parts.own.free_held_queues()
            assert await holder(dsn) == "backfill:pause"
            await operator.resume(queue="lane")
            await eventually(lambda: work.began == ["head", "follows"], timeout=HEARD)


async def test_a_worker_reads_the_pauses_of_queues_once(
    client: BackfillClient, dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be 20,000: only the duty for queues reads them, and no other duty reads the list of all controls."""

    async def refused(*_: Any, **__: Any) -> list[Control]:
        raise AssertionError("a duty reads all controls, those of queues included")

    await client.pause(queue="lane")
    work = Work()
    work.go_on.set()
    await client.enqueue("t", "ends", queue=LANE)
    await client.enqueue("t", "ends")
    with monkeypatch.context() as patch:
        patch.setattr(BackfillClient, "controls", refused)
        async with WorkerRunner(WorkerConfig(dsn), work.tasks):
            await eventually(lambda: work.began, lambda began: len(began) == 1)
            await client.resume(queue="lane")
            await eventually(lambda: work.began, lambda began: len(began) == 2)
