"""How Node's program ends, and that ours goes on with all that it leaves: jobs, locks of queues, and dead letters."""

from __future__ import annotations

import signal
from collections.abc import Collection
from datetime import timedelta
from typing import Any, LiteralString

from backfill import Queue, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient
from shared_queue import DUE, JOBS, LOCKED, ONE_EACH, Sharing

from plugins.waiting import Eventually

HELD: LiteralString = f"select id from {JOBS} where locked_at is not null order by id"
OLD: LiteralString = f"""
    with aged as (update {JOBS} set locked_at = locked_at - interval '1 hour' where locked_at is not null)
    update graphile_worker._private_job_queues set locked_at = locked_at - interval '1 hour'
    where locked_at is not null"""
AGE = timedelta(minutes=30)
pytestmark = ONE_EACH


async def _add(sharing: Sharing, count: int, payload: dict[str, Any]) -> list[int]:
    """Jobs that both added, half of them in a serial queue each."""
    made = list[int]()
    for number in range(count):
        if number % 2:
            made.append((await sharing.enqueue("t", payload, queue=Queue.serial(f"line{number}"))).id)
        else:
            made.append(int((await sharing.node.add("t", payload))["id"]))
    return made


async def _ran(sharing: Sharing, jobs: Collection[int]) -> None:
    """Assert that ours now runs these jobs, and that nothing is left then."""
    await sharing.rows(DUE)
    assert sorted(job["id"] for job in await sharing.work("t")) == sorted(jobs)
    await sharing.nothing_left()


async def test_a_graceful_end(sharing: Sharing) -> None:
    """By SIGTERM: what runs in Node ends there, what waits stays as it was, and ours runs it.

    Node may have ended before it has written the end of a job; its lock then has to grow old.
    """
    running = await _add(sharing, 2, {"wait": True})
    await sharing.node.run("t", concurrency=2, noHandleSignals=False)
    await sharing.node.has_run(*running)
    waiting = await _add(sharing, 6, {})
    sharing.node.process.send_signal(signal.SIGTERM)
    await sharing.node.is_stopping()
    await sharing.node.call("release")
    await sharing.node.process.wait()
    assert len(sharing.node.runs) == 2
    left = {job for (job,) in await sharing.rows(HELD)}
    assert left <= set(running)
    unlocked = await sharing.rows(f"select id, attempts from {JOBS} where locked_at is null order by id")
    assert unlocked == [(job, 0) for job in waiting]
    await sharing.rows(OLD)
    assert await sharing.client.release_stale_job_locks(AGE) == len(left)
    await _ran(sharing, [*waiting, *left])


async def test_a_graceful_end_with_a_full_local_queue(sharing: Sharing, eventually: Eventually) -> None:
    """What waits there, locked and with its attempt counted, comes back as it was.

    Both versions end then before they have written the ends of the jobs that run ("Cannot background something when the
    queue is already released"). So these stay locked, and are run a second time once their locks are old enough.
    """
    jobs = await _add(sharing, 7, {"wait": True})
    await sharing.node.run("t", concurrency=2, noHandleSignals=False, preset={"worker": {"localQueue": {"size": 7}}})
    await eventually(lambda: sharing.rows(HELD), lambda held: len(held) == 7)
    await eventually(lambda: len(sharing.node.runs), lambda count: count == 2)
    running = {int(run["id"]) for run in sharing.node.runs}
    waiting = [job for job in jobs if job not in running]
    assert await sharing.work("t") == []
    sharing.node.process.send_signal(signal.SIGTERM)
    await eventually(lambda: sharing.rows(HELD), lambda held: {job for (job,) in held} == running)
    returned = await sharing.rows(f"select id, attempts from {JOBS} where locked_at is null order by id")
    assert returned == [(job, 0) for job in waiting]
    await sharing.node.call("release")
    await sharing.node.process.wait()
    left = {job for (job,) in await sharing.rows(HELD)}
    await sharing.rows(OLD)
    assert await sharing.client.release_stale_job_locks(AGE) == len(left)
    await _ran(sharing, [*waiting, *left])


async def test_a_violent_end(sharing: Sharing, eventually: Eventually) -> None:
    """By SIGKILL, with a full local queue: the locks stay until they are old enough; then ours runs every job."""
    jobs = await _add(sharing, 7, {"wait": True})
    await sharing.node.run("t", concurrency=2, preset={"worker": {"localQueue": {"size": 7}}})
    await eventually(lambda: sharing.rows(HELD), lambda held: len(held) == 7)
    sharing.node.process.kill()
    await sharing.node.process.wait()
    behind = (await sharing.enqueue("t", {}, queue=Queue.serial("line1"))).id
    assert await sharing.work("t") == [], "nobody can tell yet that it is dead"
    assert await sharing.client.release_stale_job_locks(AGE) == 0
    await sharing.rows(OLD)
    assert await sharing.client.release_stale_job_locks(AGE) == 7
    assert await sharing.value(LOCKED) == 0, "a queue is unlocked with its job"
    assert await sharing.rows(f"select distinct attempts from {JOBS} where id <> %s", behind) == [(1,)]
    await _ran(sharing, [*jobs, behind])


async def test_our_workers_do_it_by_themselves(sharing: Sharing, eventually: Eventually) -> None:
    """A worker that is told an age releases what a killed Node holds, runs it, and goes on with the queue."""
    jobs = await _add(sharing, 4, {"wait": True})
    await sharing.node.run("t", concurrency=4)
    await sharing.node.has_run(*jobs)
    sharing.node.process.kill()
    await sharing.node.process.wait()
    await sharing.rows(OLD)
    behind = (await sharing.enqueue("t", {}, queue=Queue.serial("line1"))).id
    seen = list[dict[str, Any]]()
    config = WorkerConfig(
        sharing.dsn, stale_job_lock_timeout=AGE, stale_queue_lock_timeout=AGE, poll_interval=timedelta(milliseconds=50)
    )
    async with WorkerRunner(config, sharing.registry("t", seen=seen)):
        due = f"update {JOBS} set run_at = now() where locked_at is null and run_at > now()"

        async def ended() -> bool:
            await sharing.rows(due)  # a recovered attempt counts, so its retry waits
            return bool({job["id"] for job in seen} == {*jobs, behind})

        await eventually(ended)
    assert len(seen) == 5
    await sharing.nothing_left()


async def test_a_last_attempt_that_was_killed(sharing: Sharing) -> None:
    """It is not run again, and becomes a dead letter that says why."""
    job = (await sharing.enqueue("t", {"wait": True}, max_attempts=1, queue=Queue.serial("line"))).id
    await sharing.node.run("t")
    await sharing.node.has_run(job)
    sharing.node.process.kill()
    await sharing.node.process.wait()
    await sharing.rows(OLD)
    assert await sharing.client.release_stale_job_locks(AGE) == 1
    await sharing.client.process_failed_jobs()
    [dead] = (await sharing.client.list_dlq_jobs()).jobs
    assert (dead.original_job_id, dead.payload, dead.attempts) == (job, {"wait": True}, 1)
    assert dead.failure_reason == "given up by another program"
    await sharing.nothing_left()


async def test_its_locks_can_be_forced_at_once(sharing: Sharing) -> None:
    """Whoever knows that it is dead need not wait: force_unlock_workers with the id that stands in its locks."""
    jobs = await _add(sharing, 4, {"wait": True})
    await sharing.node.run("t", concurrency=4)
    await sharing.node.has_run(*jobs)
    holders = await sharing.rows(f"select distinct locked_by from {JOBS} where locked_at is not null")
    sharing.node.process.kill()
    await sharing.node.process.wait()
    await sharing.rows("select graphile_worker.force_unlock_workers(%s)", [holder for (holder,) in holders])
    await _ran(sharing, jobs)


async def test_ours_that_dies_is_no_burden_to_node(sharing: Sharing) -> None:
    """What a worker of ours held when it was killed runs in Node, once our recovery has released it."""
    queues = "update graphile_worker._private_job_queues set locked_by = %s, locked_at = now() - interval '1 minute'"
    locked = f"update {JOBS} set locked_by = %s, locked_at = now() - interval '1 minute', attempts = 1"
    jobs = await _add(sharing, 4, {})
    gone = "backfill_0123456789abcdef00"
    await sharing.rows(locked, gone)
    await sharing.rows(queues, gone)
    assert await sharing.node.work("t") == []
    async with ServicesClient(sharing.dsn) as services:
        [recovered] = await services.recover_abandoned()
    assert recovered.worker_id == gone
    await sharing.rows(DUE)
    assert sorted(int(job["id"]) for job in await sharing.node.work("t")) == jobs
    await sharing.nothing_left()


async def test_what_node_fails_for_good_is_a_dead_letter(sharing: Sharing, eventually: Eventually) -> None:
    """A worker of ours moves it at its start, with payload, error, attempts and flags; requeued, it runs in Node."""
    payload = {"fail": "never", "name": "Ada"}
    lane = Queue.serial("line")
    ours = (await sharing.enqueue("t", payload, max_attempts=2, queue=lane, priority=3, flags=["slow"])).id
    spec = {"maxAttempts": 2, "queueName": "line", "priority": 3, "flags": ["slow"]}
    theirs = int((await sharing.node.add("t", payload, **spec))["id"])
    for _ in range(2):
        await sharing.node.work("t")
        await sharing.rows(DUE)
    assert await sharing.node.work("t") == []
    async with WorkerRunner(WorkerConfig(sharing.dsn), sharing.registry("t")):
        await eventually(lambda: sharing.value(f"select count(*) from {JOBS}"), lambda count: count == 0)
    letters = (await sharing.client.list_dlq_jobs()).jobs
    assert {dead.original_job_id for dead in letters} == {ours, theirs}
    for dead in letters:
        assert (dead.task_identifier, dead.payload, dead.attempts, dead.max_attempts) == ("t", payload, 2, 2)
        assert (dead.queue_name, dead.priority, tuple(dead.flags or ())) == ("line", 3, ("slow",))
        assert (dead.failure_reason, dead.last_error) == ("given up by another program", "never")
        await sharing.client.requeue_dlq_job(dead.id)
        await sharing.rows(f"update {JOBS} set payload = '{{}}' returning id")
        [ran] = await sharing.node.work("t")
        assert (ran["queue"], ran["priority"]) == ("line", 3)
        assert ran["flags"] == {"slow": True, f"backfill.dead_letter:{dead.id}": True}
    await sharing.nothing_left()
