"""The look from the queues' side finds the free queues, through those with jobs or through the unlocked ones."""

from __future__ import annotations

import pytest

from backfill.storage.attempts import give_back_strays
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks

from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
WORKER = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("t",)),))
NAMES = f"insert into {QUEUES} (queue_name) select %s || n from generate_series(1, %s) as n"
FILL = f"""
insert into {JOBS} (task_id, job_queue_id, run_at)
select (select id from graphile_worker._private_tasks), id, now() - %s * interval '1 hour'
from {QUEUES}, generate_series(1, %s)
where starts_with(queue_name, %s)
order by 2 desc"""
LOCK = f"update {QUEUES} set locked_at = now(), locked_by = 'other' where starts_with(queue_name, 'busy')"
FREE = f"""
select array_agg(jobs.job_queue_id order by jobs.id)
from {JOBS} as jobs
join {QUEUES} as queues on queues.id = jobs.job_queue_id and starts_with(queues.queue_name, 'free')"""


@pytest.mark.parametrize(
    ("busy", "unused"),
    [(500, 0), (1_500, 0), (1_500, 4_000), (1_500, 6_000)],
    ids=["few have jobs", "few are unlocked", "some are unlocked", "most are unlocked"],
)
async def test_free_queues_behind_busy_ones_are_found(dsn: str, busy: int, unused: int) -> None:
    """In the order of their first jobs, and those that are locked or have no jobs are not."""
    await rows(dsn, "insert into graphile_worker._private_tasks (identifier) values ('t')")
    for name, number in (("busy", busy), ("unused", unused), ("free", 20)):
        await rows(dsn, NAMES, name, number)
    await rows(dsn, LOCK)
    await rows(dsn, FILL, 2, 3_000 // busy, "busy")
    await rows(dsn, FILL, 1, 1, "free")
    expected = await value(dsn, FREE)
    assert expected is not None
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        ids = await find_tasks(connection, ["t"], schema=SCHEMA)
        commands = CLAIM.commands(Look(7), worker=WORKER, bound=CLAIM.bind(ids))
        taken = CLAIM.read(await wire.send(commands, timeout=30), {number: name for name, number in ids.items()})
        await give_back_strays(connection, schema=SCHEMA, worker=WORKER, held=[])
    assert taken.hidden
    assert taken.more == tuple(expected)
    assert [job.job_queue_id for job in taken.jobs] == expected[:7]


async def test_where_all_queues_are_locked_none_is_found(dsn: str) -> None:
    """Though over a thousand of them have jobs."""
    await rows(dsn, "insert into graphile_worker._private_tasks (identifier) values ('t')")
    await rows(dsn, NAMES, "busy", 1_200)
    await rows(dsn, LOCK)
    await rows(dsn, FILL, 2, 2, "busy")
    async with await connect(dsn) as connection:
        ids = await find_tasks(connection, ["t"], schema=SCHEMA)
        commands = CLAIM.commands(Look(7), worker=WORKER, bound=CLAIM.bind(ids))
        taken = CLAIM.read(await Wire(connection).send(commands, timeout=30), {})
    assert (taken.jobs, taken.more, taken.hidden) == ([], (), True)
