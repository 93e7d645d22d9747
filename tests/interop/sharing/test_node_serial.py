"""200 serial queues that a process of Node's and one of ours share: no two jobs of one queue ever overlap."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, LiteralString

from backfill import JobSpec, NewJob, Queue
from shared_queue import LEFT, LOCKED, ONE_EACH, Sharing

from plugins.crossings import OURS
from plugins.waiting import Eventually

QUEUES, JOBS_EACH = 200, 6
SPANS: LiteralString = """
    create table spans (
      job_id bigint not null, queue_id integer not null, worker text not null, began timestamptz not null,
      ended timestamptz
    )"""
OVERLAPS: LiteralString = """
    select one.queue_id, one.job_id, other.job_id from spans as one
    join spans as other on one.queue_id = other.queue_id and one.job_id < other.job_id
      and one.began < other.ended and other.began < one.ended"""
WORKER = Path(__file__).with_name("span_worker.py")
pytestmark = ONE_EACH


async def test_two_hundred_queues(sharing: Sharing, eventually: Eventually) -> None:
    """Both add to each queue and both run a fair number; each job runs once, and none beside another of its queue."""
    await sharing.rows(SPANS)
    payload = {"seconds": 0.004}
    half = JOBS_EACH // 2
    lines = (JobSpec(queue=Queue.serial(f"line{n % QUEUES}")) for n in range(QUEUES * half))
    await sharing.client.enqueue_bulk([NewJob("span", payload, line) for line in lines])
    ours = {job for (job,) in await sharing.rows("select id from graphile_worker._private_jobs")}
    await sharing.node.call("addMany", "span", payload, [f"line{n % QUEUES}" for n in range(QUEUES * half)])
    everything = {job for (job,) in await sharing.rows("select id from graphile_worker._private_jobs")}
    assert len(everything) == QUEUES * JOBS_EACH
    for job in everything:
        sharing.crossings.added(job, OURS if job in ours else sharing.node.name)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), sharing.dsn, "8", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdin is not None
    try:
        await asyncio.wait_for(worker.stdout.readline(), 60)  # it has connected, and waits for a line
        worker.stdin.write(b"go\n")
        await sharing.node.run("span", concurrency=8)
        await eventually(lambda: sharing.value(LEFT), lambda left: left == 0, moving=True)
        await sharing.node.stop()
        worker.stdin.close()
        assert await asyncio.wait_for(worker.wait(), 60) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    spans: list[tuple[int, Any, str]] = await sharing.rows("select job_id, ended, worker from spans")
    assert sorted(job for job, _, _ in spans) == sorted(everything), "each ran exactly once"
    assert [job for job, ended, _ in spans if ended is None] == []
    assert await sharing.rows(OVERLAPS) == []
    by = {who: {job for job, _, worker in spans if worker == who} for who in ("node", "backfill")}
    assert min(len(jobs) for jobs in by.values()) >= len(everything) // 10, {who: len(by[who]) for who in by}
    both: LiteralString = "select queue_id from spans group by queue_id having count(distinct worker) = 2"
    assert len(await sharing.rows(both)) >= QUEUES // 10, "queues pass from one to the other"
    sharing.crossings.all_ran(by["node"], sharing.node.name)
    sharing.crossings.all_ran(by["backfill"], OURS)
    assert await sharing.value(LOCKED) == 0


async def test_an_overlap_is_seen(sharing: Sharing) -> None:
    """The test above can fail: intervals of one queue that overlap are found, those that only touch are not."""
    await sharing.rows(SPANS)
    await sharing.rows(
        """insert into spans values
             (1, 1, 'node', '2020-01-01 00:00:00Z', '2020-01-01 00:00:02Z'),
             (2, 1, 'backfill', '2020-01-01 00:00:01Z', '2020-01-01 00:00:03Z'),
             (3, 1, 'node', '2020-01-01 00:00:03Z', '2020-01-01 00:00:04Z'),
             (4, 2, 'node', '2020-01-01 00:00:01Z', '2020-01-01 00:00:03Z')"""
    )
    assert await sharing.rows(OVERLAPS) == [(1, 1, 2)]
