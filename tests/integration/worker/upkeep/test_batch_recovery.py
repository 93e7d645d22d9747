"""Batches that were replaced while they ran, and whose worker died then: no item is lost."""

from __future__ import annotations

import pytest

from backfill import BackfillClient
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.connection import connect
from backfill.storage.recovery import Next
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks
from backfill.worker.session import PROTOCOL

from reading import rows

SCHEMA = "graphile_worker"
DEAD = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("batch",)),))
BURIED = "select payload, job_key, failure_reason from graphile_worker.backfill_dlq"
DOUBT = "its worker died; the job may have been replaced or removed while it ran"


@pytest.mark.parametrize(("batch", "left"), [(True, [(["a", "b"], None, DOUBT)]), (False, [])])
async def test_items_of_a_replaced_batch_outlive_its_worker(
    dsn: str, batch: bool, left: list[tuple[object, ...]]
) -> None:
    """They are a dead letter, while another replaced job is deleted; the job that took the key has its own items."""
    await rows(
        dsn,
        """
        insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version, given_up_at)
        values (%s, 'there', 7, now() - interval '1 hour', %s, '0', now())""",
        DEAD,
        PROTOCOL,
    )
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        await client.enqueue("batch", ["a", "b"], job_key="k")
        ids = await find_tasks(connection, ["batch"], schema=SCHEMA)
        assert len(await CLAIM.take(Wire(connection), worker=DEAD, wanted=1, task_ids=ids)) == 1
        await client.enqueue("batch", ["c"], job_key="k")
        await client.recover_worker(DEAD, 0, next_of=lambda _: Next(batch=batch))
    assert await rows(dsn, f"select payload, attempts from {SCHEMA}._private_jobs") == [(["c"], 0)]
    assert await rows(dsn, BURIED) == left
