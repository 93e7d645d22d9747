"""Triggers and policies of the jobs' table that stand in the way of what windows do."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext

from plugins.express import LEFT, LONG, in_windows, short
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
KEEP: LiteralString = """
create function graphile_worker.keep() returns trigger language plpgsql as $$
begin
  return null;
end
$$;
create trigger keep before delete on graphile_worker._private_jobs
  for each row execute function graphile_worker.keep()
"""
CLEAR: LiteralString = "delete from graphile_worker._private_jobs"
REFUSE: LiteralString = """
create function graphile_worker.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'this one stays';
end
$$;
create trigger refuse before delete on graphile_worker._private_jobs
  for each row when (old.payload::text = '"stays"') execute function graphile_worker.refuse()
"""


def counting() -> tuple[Counter[Any], TaskRegistry[None]]:
    """An express task `t` that does nothing, and how often it ran for each payload."""
    ran, tasks = Counter[Any](), TaskRegistry[None]()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        ran[payload] += 1

    return ran, tasks


async def test_jobs_that_a_trigger_keeps_are_not_run_by_one_window_after_the_other(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """They run once more the ordinary way, in which the attempt counts; the log says what may keep them."""
    ran, tasks = counting()
    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG):
        await rows(dsn, KEEP)
        await client.enqueue_bulk(NewJob("t", number) for number in range(5))
        await eventually(
            lambda: rows(dsn, "select distinct attempts from graphile_worker._private_jobs"), [(1,)].__eq__
        )
        await rows(dsn, "drop trigger keep on graphile_worker._private_jobs")
        await rows(dsn, CLEAR)
    assert ran == Counter([*range(5)] * 2)
    assert sum("a trigger of the table may keep" in record.getMessage() for record in caplog.records) == 1


async def test_one_job_that_may_not_be_deleted_does_not_have_its_neighbours_run_again(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """The window that it was in is refused as a whole, and then each of its jobs is deleted by itself."""
    ran, tasks = counting()
    caplog.set_level(logging.INFO, "backfill")
    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG):
        await rows(dsn, REFUSE)
        await client.enqueue_bulk(NewJob("t", name) for name in ["stays", *range(5)])
        await eventually(lambda: ran["stays"] == 2)
        await eventually(lambda: value(dsn, LEFT), (1).__eq__)
        await rows(dsn, "drop trigger refuse on graphile_worker._private_jobs")
        await rows(dsn, CLEAR)
    assert ran == Counter([*range(5), "stays", "stays"])
    assert any("this one stays" in record.getMessage() for record in caplog.records)
