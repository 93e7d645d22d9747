"""SQL triggers of a user's table add jobs in the user's transaction, and both programs run them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import WorkerConfig, WorkerRunner
from shared_queue import EACH_FUNCTIONS, JOBS, LEFT, Sharing

from plugins.waiting import Eventually

TABLES: LiteralString = """
    create table orders (id integer primary key, state text not null default 'new');

    create function order_made() returns trigger language plpgsql as $$
    begin
      perform graphile_worker.add_job(
        'ship', json_build_object('order', new.id), queue_name => 'order:' || new.id % 3,
        max_attempts => 8, job_key => 'ship:' || new.id, priority => new.id % 2, flags => array['from_sql']
      );
      return new;
    end $$;
    create trigger made after insert on orders for each row execute function order_made();

    create function orders_changed() returns trigger language plpgsql as $$
    begin
      perform graphile_worker.add_jobs(
        array(
          select row(
            'tell', json_build_array(json_build_object('order', id)), null, now(), 8, 'tell', 2, null
          )::graphile_worker.job_spec
          from changed order by id limit 1
        )
        || array(
          select row('count', json_build_object('order', id), null, now(), 8, null, 3, null)::graphile_worker.job_spec
          from changed order by id
        )
      );
      return null;
    end $$;
    create trigger changed after update on orders referencing new table as changed
      for each statement execute function orders_changed();
    """
pytestmark = EACH_FUNCTIONS


@pytest.fixture
async def orders(sharing: Sharing) -> Sharing:
    """The queue, and a user's table with a trigger for each row, and one for each statement."""
    await sharing.rows(TABLES)
    return sharing


async def test_a_row_adds_a_job(orders: Sharing) -> None:
    """Each inserted row adds a job with key, queue, priority and flags by add_job, and either program runs them."""
    in_order = [number for parity in (0, 1) for number in range(1, 10) if number % 2 == parity]
    wanted = [(number, f"order:{number % 3}", f"ship:{number}", ("from_sql",)) for number in in_order]
    await orders.rows("insert into orders select generate_series(1, 9) returning id")
    ours = await orders.work("ship")
    assert [(job["payload"]["order"], job["queue_name"], job["key"], job["flags"]) for job in ours] == wanted
    await orders.rows("delete from orders returning id")
    await orders.rows("insert into orders select generate_series(1, 9) returning id")
    theirs = await orders.node.work("ship", concurrency=1)
    told = [(job["payload"]["order"], job["queue"], job["key"], tuple(job["flags"])) for job in theirs]
    assert sorted(told) == sorted(wanted), "Node passes over a queue whose last job has not quite ended"
    await orders.nothing_left()


async def test_a_statement_adds_jobs(orders: Sharing) -> None:
    """One update adds its jobs by one call of add_jobs, and an array under a key is joined to the one that waits."""
    await orders.rows("insert into orders select generate_series(1, 5) returning id")
    await orders.client.complete_jobs([job for (job,) in await orders.rows(f"select id from {JOBS}")])
    for runner in (orders.work, orders.node.work):
        await orders.rows("update orders set state = 'paid'")
        await orders.rows("update orders set state = 'sent' where id > 3")
        told, *counted = [job["payload"] for job in await runner("tell", "count", concurrency=1)]
        assert told == [{"order": 1}, {"order": 4}], "it has the lower priority, and comes first"
        assert sorted(payload["order"] for payload in counted) == [1, 2, 3, 4, 4, 5, 5]
    await orders.nothing_left()


async def test_what_is_rolled_back_leaves_nothing(orders: Sharing) -> None:
    """No job, no queue, no task; and what is not committed yet is run by nobody."""
    known = """
        select (select count(*) from graphile_worker._private_tasks where identifier in ('ship', 'tell', 'count')),
          (select count(*) from graphile_worker._private_job_queues)"""
    async with await psycopg.AsyncConnection.connect(orders.dsn) as connection:
        await connection.execute("insert into orders select generate_series(1, 9)")
        await connection.execute("update orders set state = 'paid'")
        assert await orders.work("elsewhere") == []
        assert await orders.value(LEFT) == 0
        await connection.rollback()
        assert await orders.value("select count(*) from orders") == 0
        assert (await orders.rows(known), await orders.value(LEFT)) == ([(0, 0)], 0)
        await connection.execute("insert into orders values (1)")
        await connection.commit()
    assert [run["payload"] for run in await orders.work("ship")] == [{"order": 1}]


async def test_both_hear_of_a_trigger_at_once(orders: Sharing, eventually: Eventually) -> None:
    """A worker that waits is woken by the trigger's commit, long before it would look by itself."""
    await orders.node.run("ship", pollInterval=3_600_000)
    await orders.rows("insert into orders values (1)")
    await eventually(lambda: [job["payload"] for job in orders.node.runs], [{"order": 1}].__eq__)
    await orders.node.stop()
    seen = list[dict[str, Any]]()
    config = WorkerConfig(orders.dsn, poll_interval=timedelta(hours=1))
    async with WorkerRunner(config, orders.registry("ship", seen=seen)):
        await orders.rows("insert into orders values (2)")
        await eventually(lambda: [job["payload"] for job in seen], [{"order": 2}].__eq__)
    await orders.nothing_left()
