"""Limits while the database refuses ends, loses answers, or is told to take locks away: never more run than may."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Limit, QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from fleet.processes import jobs_left, nothing_locked

from plugins.periods import let_pass, work_for
from plugins.waiting import Eventually
from reading import rows, value

REFUSE: LiteralString = """
create function refuse() returns trigger language plpgsql as $$
begin
  if old.payload::text::integer % 7 = 0 then
    raise exception 'no';
  end if;
  return old;
end $$;
create trigger refuse before delete on graphile_worker._private_jobs for each row execute function refuse()
"""
CUT: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name like 'backfill backfill_%'
"""


class Counted:
    """A task whose attempts take some milliseconds, and how many of them run at once."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.now = 0
        self.most = 0
        self.ended = 0
        self.tasks.task("t")(self.t)

    async def t(self, _: Any) -> None:
        """Count."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await work_for(0.005)
        finally:
            self.now -= 1
            self.ended += 1


async def _live(dsn: str) -> list[tuple[Any, ...]]:
    """Shares that count in the database."""
    return await rows(
        dsn,
        """select shares.slot from graphile_worker.backfill_shares as shares
           join graphile_worker._private_jobs as jobs on jobs.id = shares.job_id and jobs.locked_by = shares.worker""",
    )


@pytest.mark.parametrize("fault", ["none", "refused", "cut"])
async def test_no_more_run_than_may_whatever_becomes_of_their_ends(
    dsn: str, eventually: Eventually, fault: str
) -> None:
    """Three at once in two workers, with ends that are refused, or with connections that are cut again and again."""
    one, two = Counted(), Counted()
    config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(8)])
    async with BackfillClient(dsn) as client:
        await client.set_limit("t", limit=Limit(3))
        await client.enqueue_bulk("t", range(1, 601))
        if fault == "refused":
            await rows(dsn, REFUSE)
        async with WorkerRunner(config, one.tasks), WorkerRunner(config, two.tasks):
            for _ in range(6):
                await let_pass(0.2)
                assert one.now + two.now <= 3
                assert len(await _live(dsn)) <= 3
                if fault == "cut":
                    await rows(dsn, CUT)
            if fault == "refused":
                await eventually(lambda: one.ended + two.ended, lambda ended: ended >= 3)
                await rows(dsn, "drop trigger refuse on graphile_worker._private_jobs")
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=90, moving=True)
    assert max(one.most, two.most) <= 3
    assert one.ended + two.ended >= 600
    assert await nothing_locked(dsn) == []


async def test_a_share_is_free_once_its_jobs_lock_was_taken_away(dsn: str, eventually: Eventually) -> None:
    """Somebody unlocks a running job by force: its share ends with the lock, and another job has one."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, release = list[int](), asyncio.Event()

    @tasks.task("t")
    async def t(number: int) -> None:
        begun.append(number)
        await release.wait()

    async with BackfillClient(dsn) as client:
        await client.set_limit("t", limit=Limit(1))
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(4)]), tasks) as runner:
            await client.enqueue_bulk("t", [1, 2])
            await eventually(lambda: begun, lambda now: now == [1])
            assert runner.worker_id is not None
            await rows(dsn, "select graphile_worker.force_unlock_workers(array[%s])", runner.worker_id)
            await eventually(lambda: len(begun), lambda now: now >= 2)
            release.set()
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert await nothing_locked(dsn) == []


SHARES: LiteralString = "select count(*) from graphile_worker.backfill_shares where job_id = %s"
STEAL: LiteralString = """
with named as (select %s::bigint as lost, %s::bigint as other),
stolen as (
  update graphile_worker._private_jobs set locked_at = null, locked_by = null from named where id = lost
),
taken as (
  update graphile_worker._private_jobs set locked_at = now(), locked_by = 'other' from named where id = other
)
update graphile_worker.backfill_shares set job_id = other, worker = 'other', turn = turn + 1
from named
where job_id = lost
returning slot
"""


async def test_a_share_that_was_lost_is_not_used_for_ever(dsn: str, eventually: Eventually) -> None:
    """Another worker has a job's slot by now: the job that follows it here is the last one that starts with it."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, stolen = list[int](), list[Any]()
    last = 2000

    @tasks.task("t")
    async def t(number: int, context: WorkerContext[None]) -> None:
        begun.append(number)
        if number == 100 and not stolen:
            # The row of its share follows it a little later; then it is taken, so that jobs wait here for its share.
            await eventually(lambda: value(dsn, SHARES, context.job.id))
            stolen.extend(await rows(dsn, STEAL, context.job.id, context.job.id + 1000))
        await work_for(0.005)

    async def stands_still() -> bool:
        before = len(begun)
        await let_pass(0.5)
        return len(begun) == before

    async with BackfillClient(dsn) as client:
        await client.set_limit("t", limit=Limit(1))
        await client.enqueue_bulk("t", range(last))
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(4)]), tasks):
            await eventually(lambda: stolen, lambda slots: slots == [(1,)])
            await eventually(stands_still)
            seen = len(begun)
            assert seen < 300
            await let_pass(0.7)
            assert len(begun) == seen
            await rows(dsn, "update graphile_worker._private_jobs set locked_at = null, locked_by = null "
                            "where locked_by = 'other' returning id")  # fmt: skip
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=90, moving=True)
    assert set(begun) == set(range(last))
    assert await nothing_locked(dsn) == []
