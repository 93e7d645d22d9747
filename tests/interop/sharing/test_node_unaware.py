"""What only backfill knows of: its records of attempts, and queues that wait for a retry, beside Node's worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backfill import Queue
from shared_queue import LOCKED, ONE_EACH, Sharing

KEPT = "select count(*) from graphile_worker.backfill_attempts"
LANE = Queue.serial("line", block_on_retry=True)
pytestmark = ONE_EACH


def due() -> datetime:
    """A moment that is over."""
    return datetime.now(UTC) - timedelta(seconds=1)


async def test_a_job_that_node_completes_takes_its_attempts_with_it(sharing: Sharing) -> None:
    """Node deletes its row and knows nothing of our records: nobody is shown them, and our workers delete them."""
    outcome = await sharing.enqueue("t", {"fail": "not today"})
    await sharing.work("t")
    assert [record.message for record in await sharing.client.attempts(outcome)] == ["not today"]
    await sharing.rows("update graphile_worker._private_jobs set payload = '{}'")
    await sharing.client.reschedule_jobs([outcome.id], run_at=due())
    assert len(await sharing.node.work("t")) == 1
    assert await sharing.client.attempts(outcome) == []
    assert await sharing.value(KEPT) == 1
    await sharing.work("t")
    assert await sharing.value(KEPT) == 0


async def test_node_leaves_a_held_queue_alone(sharing: Sharing) -> None:
    """A queue that waits for the retry of a job: Node runs neither that job nor those behind it, and our workers do."""
    first = await sharing.enqueue("t", {"fail": "not today"}, queue=LANE)
    second = await sharing.enqueue("t", {}, queue=LANE)
    await sharing.work("t")
    await sharing.rows("update graphile_worker._private_jobs set payload = '{}'")
    await sharing.client.reschedule_jobs([first], run_at=due())
    assert [held.job_id for held in await sharing.client.held_queues()] == [first.id]
    assert await sharing.node.work("t") == []
    assert [job["id"] for job in await sharing.work("t")] == [first.id, second.id]
    assert await sharing.value(LOCKED) == 0


async def test_node_holds_no_queue(sharing: Sharing) -> None:
    """Where Node runs a job with the flag and it fails, Node runs the next one: it does not know the flag."""
    first = await sharing.enqueue("t", {"fail": "not today"}, queue=LANE)
    second = await sharing.enqueue("t", {}, queue=LANE)
    assert [int(job["id"]) for job in await sharing.node.work("t")] == [first.id, second.id]
