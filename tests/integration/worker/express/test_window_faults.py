"""Windows beside what goes wrong around them: a stop, a change of the fleet, rows that are locked, and a trigger."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, JobSpec, NewJob, TaskRegistry, WorkerContext

from plugins.express import LEFT, LONG, SESSIONS, all_in_windows, in_windows, is_free, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
HOUR = timedelta(hours=1)
_KEEP_UNCLAIMED: LiteralString = """
create function graphile_worker.keep_unclaimed() returns trigger language plpgsql as $$
begin
  return case when new.locked_at is null then new end;
end
$$;
create trigger keep_unclaimed before update on graphile_worker._private_jobs
  for each row execute function graphile_worker.keep_unclaimed()
"""
_SHUT: LiteralString = """
create table graphile_worker.shut ();
create function graphile_worker.refuse_while_shut() returns trigger language plpgsql as $$
begin
  if exists (select from graphile_worker.shut) then
    raise exception 'the row is locked' using errcode = 'lock_not_available';
  end if;
  return old;
end
$$;
create trigger shut before delete on graphile_worker._private_jobs
  for each row execute function graphile_worker.refuse_while_shut();
insert into graphile_worker.shut default values
"""
_OPEN: LiteralString = "delete from graphile_worker.shut"
_CLAIM: LiteralString = "drop trigger keep_unclaimed on graphile_worker._private_jobs"


class Waiting:
    """An express task `t` whose handlers wait until they may end.

    Attributes:
        started: the payloads of those that began.
        cancelled: the payloads of those that were cancelled.
        release: set when they may end.
    """

    def __init__(self) -> None:
        self.started = list[Any]()
        self.cancelled = list[Any]()
        self.was_cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "t")
        async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
            self.started.append(payload)
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append(payload)
                self.was_cancelled.set()
                raise


async def test_a_job_that_waits_for_the_end_of_a_window_does_not_start_in_a_stop(
    dsn: str, eventually: Eventually
) -> None:
    """A window has found an ordinary job too, which was to start after it; the worker stops before that."""
    seen = Waiting()
    async with BackfillClient(dsn) as client:
        async with in_windows(dsn, seen.tasks, express_window=LONG) as runner:
            await client.enqueue_bulk([NewJob("t", "express"), NewJob("t", "ordinary", JobSpec(timeout=HOUR))])
            await eventually(lambda: seen.started)
            assert runner._parts is not None
            executor = runner._parts.one.executor

            async def release() -> None:
                await eventually(lambda: all(running.claim.in_row for running in executor.held.values()))
                seen.release.set()

            releasing = asyncio.create_task(release())
        await releasing
        assert seen.started == ["express"]
        assert await rows(dsn, "select attempts, locked_by from graphile_worker._private_jobs") == [(0, None)]


async def test_a_lane_that_leaves_the_windows_while_one_is_open_goes_on_at_once(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When that window ends, the pumps look for the lane's next jobs, and nothing else would wake them soon."""
    seen = Waiting()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, seen.tasks, concurrency=2, express_window=LONG, poll_interval=HOUR, ahead_bytes=0) as runner,
    ):
        monkeypatch.setattr("backfill.worker.pipeline.claimer.LOOK_SECONDS", HOUR.total_seconds())
        assert runner._parts is not None
        one = runner._parts.one
        one.station.claimer._around_at = one.station.locks._next_look = float("inf")
        await client.enqueue_bulk(NewJob("t", number) for number in range(10))
        await eventually(lambda: len(seen.started), (2).__eq__)
        monkeypatch.setattr(one.beat, "fleet", 9)
        one.station.claimer.windows_look()
        assert not all_in_windows(runner)
        seen.release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert seen.started == [*range(10)]


async def test_jobs_whose_claims_a_trigger_keeps_from_their_rows_are_cancelled(
    dsn: str, eventually: Eventually
) -> None:
    """Others may run them from the end of the window on, as the rows say."""
    seen = Waiting()
    async with BackfillClient(dsn) as client, in_windows(dsn, seen.tasks):
        await rows(dsn, _KEEP_UNCLAIMED)
        await client.enqueue_bulk([NewJob("t", "express"), NewJob("t", "ordinary", JobSpec(timeout=HOUR))])
        await asyncio.wait_for(seen.was_cancelled.wait(), 30)  # a look now and then might come after the next one
        assert seen.cancelled == ["express"]
        assert "ordinary" not in seen.started
        seen.release.set()
        await rows(dsn, _CLAIM)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert set(seen.started) == {"express", "ordinary"}


async def test_no_window_opens_while_heartbeats_do_not_get_through(dsn: str, eventually: Eventually) -> None:
    """Its jobs would not start; windows open again once a heartbeat gets through."""
    seen, second = Waiting(), timedelta(seconds=1)
    seen.release.set()
    async with (
        BackfillClient(dsn) as client,
        in_windows(dsn, seen.tasks, dead_after=second, heartbeat_interval=second / 5) as runner,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        assert runner._parts is not None
        one = runner._parts.one
        await other.execute("select id from graphile_worker.backfill_workers for update")
        await eventually(lambda: one.beat.leased_until() < time.monotonic())
        await eventually(lambda: one.station.windows, (0).__eq__)
        added = await client.enqueue_bulk((NewJob("t", number) for number in range(5)), return_ids=True)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert one.station.windows == 0
            assert await is_free(dsn, (added.ids or [0])[0])
        await other.rollback()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: all_in_windows(runner))
    assert sorted(seen.started) == [*range(5)]


async def test_completed_jobs_are_kept_until_they_can_be_deleted(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A window can hold their rows, but cannot delete them for a while. One warning is enough."""
    seen = Waiting()
    caplog.set_level(logging.DEBUG, "backfill.worker.express")

    def told() -> list[int]:
        return [record.levelno for record in caplog.records if "could not be deleted" in record.getMessage()]

    async with BackfillClient(dsn) as client, in_windows(dsn, seen.tasks, express_window=LONG):
        await rows(dsn, _SHUT)
        await client.enqueue_bulk(NewJob("t", number) for number in range(5))
        await eventually(lambda: len(seen.started), (5).__eq__)
        seen.release.set()
        await eventually(told)
        session = await rows(dsn, SESSIONS)
        await eventually(lambda: len(told()), (3).__le__)
        assert await rows(dsn, SESSIONS) == session
        await rows(dsn, _OPEN)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert set(seen.started) == {*range(5)}
    assert told().count(logging.WARNING) == 1
