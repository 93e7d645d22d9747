"""SQL triggers of a user's table add jobs in the user's transaction, and both programs run them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest

from backfill import WorkerConfig, WorkerRunner
from shared_queue import EACH_FUNCTIONS, JOBS, LEFT, Sharing

from places import ROOT
from plugins.waiting import Eventually

TABLE: LiteralString = """
    create table orders (id integer primary key, customer integer not null, state text not null default 'new')"""
PAGE = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
TRIGGERS = [block for block in re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "trigger" in block]
"""What the page on sharing a queue shows its readers."""
MAKE: LiteralString = "insert into orders select number, number %% 3 from generate_series(1, %s) as number"
pytestmark = EACH_FUNCTIONS


@pytest.fixture
async def orders(sharing: Sharing) -> Sharing:
    """The queue, and a user's table with a trigger for each row, and one for each statement."""
    await sharing.rows(TABLE)
    assert len(TRIGGERS) == 2
    for trigger in TRIGGERS:
        await sharing.rows(cast("LiteralString", trigger))
    return sharing


async def test_a_row_adds_a_job(orders: Sharing) -> None:
    """Each inserted row adds a job with key, queue, priority and flags by add_job, and either program runs them."""
    in_order = [number for parity in (0, 1) for number in range(1, 10) if number % 2 == parity]
    wanted = [(number, f"customer:{number % 3}", f"ship:{number}", ("from_sql",)) for number in in_order]
    await orders.rows(MAKE, 9)
    ours = await orders.work("ship_order")
    assert [(job["payload"]["order"], job["queue_name"], job["key"], job["flags"]) for job in ours] == wanted
    await orders.rows("delete from orders")
    await orders.rows(MAKE, 9)
    theirs = await orders.node.work("ship_order", concurrency=1)
    told = [(job["payload"]["order"], job["queue"], job["key"], tuple(job["flags"])) for job in theirs]
    assert sorted(told) == sorted(wanted), "Node passes over a queue whose last job has not quite ended"
    await orders.nothing_left()


async def test_a_statement_adds_jobs(orders: Sharing) -> None:
    """One update adds its jobs by one call of add_jobs, and an array under a key is joined to the one that waits."""
    await orders.rows(MAKE, 5)
    await orders.client.complete_jobs([job for (job,) in await orders.rows(f"select id from {JOBS}")])
    for runner in (orders.work, orders.node.work):
        await orders.rows("update orders set state = 'paid'")
        await orders.rows("update orders set state = 'sent' where id > 3")
        await orders.rows("update orders set state = 'lost' where id > 5")
        announced, *receipts = [job["payload"] for job in await runner("announce", "send_receipt", concurrency=1)]
        assert announced == [1, 2, 3, 4, 5, 4, 5], "it has the lower priority, and comes first"
        assert sorted(payload["order"] for payload in receipts) == [1, 2, 3, 4, 4, 5, 5]
    await orders.nothing_left()


async def test_what_is_rolled_back_leaves_nothing(orders: Sharing) -> None:
    """No job, no queue, no task; and what is not committed yet is run by nobody."""
    known: LiteralString = """
        select (select count(*) from graphile_worker._private_tasks), (
          select count(*) from graphile_worker._private_job_queues
        )"""
    async with await psycopg.AsyncConnection.connect(orders.dsn) as connection:
        await connection.execute(MAKE, (9,))
        await connection.execute("update orders set state = 'paid'")
        assert await orders.value(LEFT) == 0
        assert await orders.node.work("elsewhere") == []
        before = await orders.rows(known)
        await connection.rollback()
        assert (await orders.value("select count(*) from orders"), await orders.value(LEFT)) == (0, 0)
        assert await orders.rows(known) == before == [(1, 0)], "elsewhere is Node's"
        await connection.execute(MAKE, (1,))
        await connection.commit()
    assert [run["payload"] for run in await orders.work("ship_order")] == [{"order": 1}]
    await orders.nothing_left()


async def test_both_hear_of_a_trigger_at_once(orders: Sharing, eventually: Eventually) -> None:
    """A worker that waits is woken by the trigger's commit, long before it would look by itself."""
    await orders.node.run("ship_order", pollInterval=3_600_000)
    await orders.rows("insert into orders values (1, 1)")
    await eventually(lambda: [job["payload"] for job in orders.node.runs], [{"order": 1}].__eq__)
    await orders.node.stop()
    seen = list[dict[str, Any]]()
    config = WorkerConfig(orders.dsn, poll_interval=timedelta(hours=1))
    async with WorkerRunner(config, orders.registry("ship_order", seen=seen)):
        await orders.rows("insert into orders values (2, 1)")
        await eventually(lambda: [job["payload"] for job in seen], [{"order": 2}].__eq__)
    await orders.nothing_left()
