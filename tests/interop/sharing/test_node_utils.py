"""What operators do by Node's utilities to jobs of ours, and by ours to those of Node's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill import Queue, WorkerConfig, WorkerContext, WorkerRunner
from shared_queue import DUE, JOBS, ONE_EACH, Sharing

from plugins.waiting import Eventually

MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
pytestmark = ONE_EACH


async def _four(sharing: Sharing, by: str, payload: dict[str, Any]) -> list[int]:
    """Three jobs that wait, the last one in a serial queue, and before them one that runs in Node."""
    running = (await sharing.enqueue("slow", {"wait": True})).id
    await sharing.node.run("slow")
    await sharing.node.has_run(running)
    if by == "us":
        made = [(await sharing.enqueue("t", payload)).id for _ in range(2)]
        return [running, *made, (await sharing.enqueue("t", payload, queue=Queue.serial("line"))).id]
    made = [int((await sharing.node.add("t", payload))["id"]) for _ in range(2)]
    return [running, *made, int((await sharing.node.add("t", payload, queueName="line"))["id"])]


async def _end(sharing: Sharing) -> None:
    """Let the running job end."""
    await sharing.node.call("release")
    await sharing.node.stop()


async def test_nodes_utilities_on_jobs_of_ours(sharing: Sharing) -> None:
    """It completes, fails for good and reschedules those that wait, and leaves alone the one that runs."""
    running, first, second, third = jobs = await _four(sharing, "us", {})
    words = {"runAt": MOMENT.isoformat(), "priority": 7, "attempts": 2, "maxAttempts": 4}
    changed = await sharing.node.utils("rescheduleJobs", list(map(str, jobs)), words)
    assert sorted(int(row["id"]) for row in changed) == [first, second, third]
    [one] = [job for job in [await sharing.client.get_job(first)] if job is not None]
    assert (one.run_at, one.priority, one.attempts, one.max_attempts) == (MOMENT, 7, 2, 4)
    completed = await sharing.node.utils("completeJobs", [str(running), str(first)])
    assert [int(row["id"]) for row in completed] == [first]
    failed = await sharing.node.utils("permanentlyFailJobs", [str(running), str(second)], "nobody wants it")
    assert [int(row["id"]) for row in failed] == [second]
    assert await sharing.client.process_failed_jobs() == 1
    [dead] = (await sharing.client.list_dlq_jobs()).jobs
    assert (dead.original_job_id, dead.last_error) == (second, "nobody wants it")
    assert [(job["id"], job["attempt"]) for job in await sharing.work("t")] == [(third, 3)]
    await _end(sharing)
    await sharing.nothing_left()


async def test_our_verbs_on_jobs_of_nodes(sharing: Sharing) -> None:
    """The same by complete_jobs, fail_jobs and reschedule_jobs."""
    running, first, second, third = jobs = await _four(sharing, "node", {})
    changed = await sharing.client.reschedule_jobs(jobs, run_at=MOMENT, priority=7, attempts=2, max_attempts=4)
    assert sorted(job.id for job in changed) == [first, second, third]
    assert [job.id for job in await sharing.client.complete_jobs([running, first])] == [first]
    assert [job.id for job in await sharing.client.fail_jobs([running, second], "nobody wants it")] == [second]
    assert await sharing.node.work("t", noHandleSignals=True) != []
    told = [
        (int(job["id"]), job["attempts"], job["priority"]) for job in sharing.node.runs if job["id"] != str(running)
    ]
    assert told == [(third, 3, 7)]
    assert [job.id for job in await sharing.client.reschedule_jobs([second], attempts=0, run_at=MOMENT)] == [second]
    assert [int(job["id"]) for job in await sharing.node.work("t")] == [second]
    await _end(sharing)
    await sharing.nothing_left()


async def test_node_cleans_up_beside_us(sharing: Sharing, eventually: Eventually) -> None:
    """It deletes unused tasks, unused queues and failed jobs; our worker goes on with tasks and queues made anew."""
    seen = list[dict[str, Any]]()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def do(payload: Any, ctx: WorkerContext[None]) -> None:
        if "wait" in payload:
            begun.set()
            await go_on.wait()

    tasks = ["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"]
    async with WorkerRunner(WorkerConfig(sharing.dsn, concurrency=2), sharing.registry("t", "u", do=do, seen=seen)):
        for number in range(3):
            await sharing.node.add("t", {}, queueName=f"line{number}")
        await eventually(lambda: len(seen), lambda count: count == 3)
        await sharing.enqueue("u", {"wait": True}, queue=Queue.serial("held"))
        await begun.wait()
        dead = await sharing.node.add("other", {}, maxAttempts=1)
        await sharing.client.fail_jobs([int(dead["id"])])
        await eventually(lambda: sharing.value(f"select count(*) from {JOBS} where locked_at is not null"), (1).__eq__)
        await sharing.node.utils("cleanup", {"tasks": tasks})
        assert await sharing.rows("select queue_name from graphile_worker._private_job_queues") == [("held",)]
        assert ("t",) not in await sharing.rows("select identifier from graphile_worker._private_tasks")
        assert await sharing.value(f"select count(*) from {JOBS}") == 1
        for number in range(3):
            await sharing.node.add("t", {}, queueName=f"line{number}")
        await sharing.enqueue("t", {}, queue=Queue.serial("held"))
        go_on.set()
        await eventually(lambda: len(seen), lambda count: count == 8)
    await sharing.nothing_left()


async def test_we_clean_up_beside_node(sharing: Sharing) -> None:
    """Failed jobs of Node's go to the dead letters; queues are deleted only where the functions are ours."""
    job = int((await sharing.node.add("t", {"fail": "never"}, maxAttempts=1, queueName="line"))["id"])
    await sharing.node.work("t")
    await sharing.client.cleanup_permanently_failed_jobs()
    assert [dead.original_job_id for dead in (await sharing.client.list_dlq_jobs()).jobs] == [job]
    await sharing.nothing_left()
    whose = await sharing.value("select graphile_worker.backfill_whose_functions(false)")
    assert whose != "ours", "Node's came first, or Node has replaced them"
    assert (await sharing.rows("select queue_name from graphile_worker._private_job_queues")) == [("line",)]


async def test_node_forces_a_worker_of_ours(sharing: Sharing, eventually: Eventually) -> None:
    """ForceUnlockWorkers takes a job from our live worker: Node runs it, and our attempt's end changes nothing."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def do(payload: Any, ctx: WorkerContext[None]) -> None:
        begun.set()
        await go_on.wait()
        raise ValueError("too late")

    job = (await sharing.enqueue("t", {"wait": True}, queue=Queue.serial("line"))).id
    holder = f"select locked_by from {JOBS}"
    async with WorkerRunner(WorkerConfig(sharing.dsn, poll_interval=timedelta(hours=1)), sharing.registry("t", do=do)):
        await begun.wait()
        await sharing.node.utils("forceUnlockWorkers", [await sharing.value(holder)])
        await sharing.node.run("t")
        await sharing.node.has_run(job)
        theirs = await sharing.rows(f"select locked_by, locked_at, attempts from {JOBS}")
        go_on.set()
    assert await sharing.rows(f"select locked_by, locked_at, attempts from {JOBS}") == theirs
    assert theirs[0][2] == 2
    await _end(sharing)
    await sharing.rows(DUE)
    await sharing.nothing_left()
