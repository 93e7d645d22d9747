"""Batches that were removed or replaced while a worker had them: removed items are dropped, others are never lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, BatchFailed, Snooze, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.cli.supervise.policies import Policies
from backfill.storage.attempts import give_back_strays
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.recovery import CutOff, Next
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.policy import next_of
from backfill.worker.session import PROTOCOL

from reading import rows

SCHEMA = "graphile_worker"
DEAD = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("batch",)),))
JOBS: LiteralString = "select payload, flags from graphile_worker._private_jobs order by id"
DEAD_LETTERS: LiteralString = "select payload, failure_reason from graphile_worker.backfill_dlq"
ROW: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version, given_up_at)
    values (%s, 'there', 7, now() - interval '1 hour', %s, '0', now())"""
UNMARK: LiteralString = "update graphile_worker._private_jobs set flags = flags - 'backfill.removed'"
MARK = {"backfill.removed": True}
DIED = "its worker died; the job may have been replaced or removed while it ran"


async def _add(dsn: str, payload: Any) -> None:
    async with BackfillClient(dsn) as client:
        await client.enqueue("batch", payload, job_key="bucket")


async def _claim(wire: Wire) -> None:
    """Claim the job as a worker that dies at once, or that never gets the answer."""
    ids = await find_tasks(wire.connection, ["batch"], schema=SCHEMA)
    await wire.send(CLAIM.commands(Look(9), worker=DEAD, bound=CLAIM.bind(ids)), timeout=30)


@pytest.mark.parametrize("error", [BatchFailed([1]), OSError("x"), Snooze(timedelta(0)), None])
async def test_items_of_a_batch_that_was_removed_are_dropped(dsn: str, error: Exception | None) -> None:
    """Nothing of it remains, however it ends: no job, no dead letter."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True)
    async def run(items: list[str], ctx: WorkerContext[None]) -> None:
        await ctx.client.remove_job("bucket")
        assert await rows(dsn, JOBS) == [(["a", "b"], MARK)]
        if error is not None:
            raise error

    await _add(dsn, ["a", "b"])
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert await rows(dsn, JOBS) == []
    assert await rows(dsn, DEAD_LETTERS) == []


async def test_a_removed_batch_that_is_interrupted_is_dropped(dsn: str) -> None:
    """Its worker stops before the handler ends."""
    tasks: TaskRegistry[None] = TaskRegistry()
    removed = asyncio.Event()

    @tasks.task("batch", batch=True)
    async def run(items: list[str], ctx: WorkerContext[None]) -> None:
        await ctx.client.remove_job("bucket")
        removed.set()
        await asyncio.Event().wait()

    await _add(dsn, ["a", "b"])
    async with asyncio.timeout(60), WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timedelta(seconds=0.1)), tasks):
        await removed.wait()
    assert await rows(dsn, JOBS) == []
    assert await rows(dsn, DEAD_LETTERS) == []


@pytest.mark.parametrize("batch", [True, False, None])
@pytest.mark.parametrize("protocol", [PROTOCOL, None])
async def test_a_removed_batch_whose_worker_died_is_dropped(dsn: str, batch: bool | None, protocol: int | None) -> None:
    """Whoever recovers it, and whether he knows the task or not; also where the worker's row is gone."""
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        await _add(dsn, ["a", "b"])
        await _claim(Wire(connection))
        await client.remove_job("bucket")
        await _recover(dsn, client, Next(batch=batch), protocol)
    assert await rows(dsn, JOBS) == []
    assert await rows(dsn, DEAD_LETTERS) == []


async def _recover(dsn: str, client: BackfillClient, then: Next, protocol: int | None) -> None:
    if protocol is not None:
        await rows(dsn, ROW, DEAD, protocol)
        await client.recover_worker(DEAD, 0, next_of=lambda _: then)
    else:
        await client.recover_abandoned(gone_for=timedelta(0), next_of=lambda _: then)


@pytest.mark.parametrize(
    ("payload", "batch", "kept"),
    [(["a"], True, True), (["a"], None, True), (["a"], False, False), ({"a": 1}, None, False), ({"a": 1}, True, True)],
)
async def test_a_replaced_job_whose_worker_died(dsn: str, payload: Any, batch: bool | None, kept: bool) -> None:
    """Who does not know the task takes a job for a batch whose payload is an array, and keeps its items."""
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        await _add(dsn, payload)
        await _claim(Wire(connection))
        await _add(dsn, ["new"])
        await _recover(dsn, client, Next(batch=batch), PROTOCOL)
    assert await rows(dsn, JOBS) == [(["new"], None)]
    assert await rows(dsn, DEAD_LETTERS) == ([(payload, DIED)] if kept else [])


@pytest.mark.parametrize(
    ("batches", "how", "left"),
    [
        (["batch"], "replaced", [(["a"], "replaced or removed while it ran")]),
        (["batch"], "removed", []),
        (["batch"], "unmarked", [(["a"], "replaced or removed while it ran")]),
        ([], "replaced", []),
        (["other"], "removed", []),
    ],
)
async def test_a_claim_whose_answer_was_lost(dsn: str, batches: list[str], how: str, left: list[Any]) -> None:
    """Its worker keeps the items of a batch that was replaced meanwhile; a plain job is superseded by the new one.

    Where another program made the schema, its remove_job leaves no mark: such a batch is kept as a dead letter.
    """
    async with BackfillClient(dsn) as client, await connect(dsn) as connection:
        await _add(dsn, ["a"])
        await _claim(Wire(connection))
        if how == "replaced":
            await _add(dsn, ["new"])
        else:
            await client.remove_job("bucket")
        if how == "unmarked":
            await rows(dsn, UNMARK)
        back, gone = await give_back_strays(connection, schema=SCHEMA, worker=DEAD, held=[], batches=batches)
        assert (len(back), len(gone)) == (0, 1)
    assert await rows(dsn, JOBS) == ([(["new"], None)] if how == "replaced" else [])
    assert await rows(dsn, DEAD_LETTERS) == left


@pytest.mark.parametrize(
    ("payload", "holder", "marked"),
    [('["a"]', DEAD, True), ('{"a": 1}', DEAD, False), ('["a"]', "worker-of-node", False), ("null", DEAD, False)],
)
async def test_only_batches_that_our_workers_hold_are_marked(dsn: str, payload: str, holder: str, marked: bool) -> None:
    """All other rows are left as Graphile Worker's remove_job leaves them; flags that a job has stay."""
    await rows(
        dsn, "select from graphile_worker.add_job('batch', %s::json, job_key => 'k', flags => array['own'])", payload
    )
    await rows(dsn, "update graphile_worker._private_jobs set locked_by = %s, locked_at = now()", holder)
    await rows(dsn, "select from graphile_worker.remove_job('k')")
    [(_, flags)] = await rows(dsn, JOBS)
    await rows(dsn, "delete from graphile_worker._private_jobs")
    assert flags == {"own": True} | (MARK if marked else {})


def test_who_recovers_says_what_is_known() -> None:
    """Of a task that is not known, neither a worker nor a supervisor says that its jobs are no batches."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True, aliases=["bulk"])
    async def batch(items: list[str]) -> None: ...

    @tasks.task("plain")
    async def plain(items: list[str]) -> None: ...

    policies = Policies.of(tasks)
    known = {"batch": True, "bulk": True, "plain": False, "other": None}
    for name, expected in known.items():
        job = CutOff(1, 1, 8, name, ())
        assert next_of(job, tasks, None).batch is expected
        assert policies.next_of(job).batch is expected
        assert Policies().next_of(job).batch is None
