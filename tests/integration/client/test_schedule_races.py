"""Schedulers, operators and Node's scheduler at the same items at once.

Nothing is done twice, and nobody waits in a ring.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import LiteralString

import pytest

from backfill.client.asking import carry_out
from backfill.client.lent import ServicesClient
from backfill.client.verbs.schedules import (
    add_schedule,
    find_known_schedules,
    pause_schedule,
    resume_schedule,
)  # fmt: skip
from backfill.storage.schedules import NewRun, RunOutcome

from plugins.waiting import Eventually
from reading import rows, value
from schedule_runs import LONG_AGO, NODE, NOON, SCHEMA, add_within, ask, new_run, opened, outcomes

ADDED, BUSY, STALE, TAKEN = RunOutcome.ADDED, RunOutcome.BUSY, RunOutcome.STALE, RunOutcome.TAKEN
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
KEYED: LiteralString = """
select graphile_worker.add_jobs(array(
  select row('t', null, null, null, null, key, null, null)::graphile_worker.job_spec
  from unnest(%s::text[]) as keys (key)
))
"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client of a worker's services, and the items a and b, which are known since long ago.

    Their task is there too: whoever adds the first job of a task keeps others waiting who do so at the same time.
    """
    await rows(dsn, "select from graphile_worker.add_job('t')")
    await rows(dsn, "delete from graphile_worker._private_jobs")
    async with ServicesClient(dsn) as one:
        await one.register_schedules(["a", "b"], LONG_AGO)
        yield one


async def test_twenty_schedulers_do_each_run_once(dsn: str) -> None:
    """Sixty items, three runs of each, sent by all of them at the same time, in orders of their own."""
    names = [f"item{number}" for number in range(60)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ServicesClient(dsn)) for _ in range(20)]
        known = await asyncio.gather(*(one.register_schedules(names, LONG_AGO) for one in clients))
        assert all(one.keys() == set(names) for one in known)

        async def schedule(number: int) -> int:
            order = names[number:] + names[:number]
            runs = [new_run(name, minute) for name in order for minute in range(3)]
            added = 0
            while runs:
                done = await clients[number].add_runs(runs)
                added += sum(one.outcome is ADDED for one in done)
                runs = [run for run, one in zip(runs, done, strict=True) if one.outcome is BUSY]
            return added

        assert sum(await asyncio.gather(*map(schedule, range(20)))) == 180
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 180


async def test_an_item_that_another_scheduler_holds_is_busy(dsn: str, client: ServicesClient) -> None:
    """The others go on, and nobody waits; once the other one has written its run, that is taken."""
    async with await opened(dsn) as other:
        assert [one.outcome for one in await add_within(other, [new_run("a")])] == [ADDED]
        assert await outcomes(client, new_run("a"), new_run("b")) == [BUSY, ADDED]
        await other.commit()
    assert await outcomes(client, new_run("a")) == [TAKEN]


async def test_a_scheduler_that_fails_leaves_the_run_to_others(dsn: str, client: ServicesClient) -> None:
    """It is rolled back with its job."""
    async with await opened(dsn) as other:
        await add_within(other, [new_run("a")])
        await other.rollback()
    assert await outcomes(client, new_run("a")) == [ADDED]


async def test_a_pause_waits_for_the_run_that_is_being_added(
    dsn: str, client: ServicesClient, eventually: Eventually
) -> None:
    """So no run is committed once it has returned."""
    async with await opened(dsn) as other:
        await add_within(other, [new_run("a")])
        pausing = asyncio.create_task(ask(client, pause_schedule("a", None)))
        await eventually(lambda: value(dsn, WAITING), lambda count: count == 1)
        assert not pausing.done()
        await other.commit()
        await pausing
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 1
    assert await outcomes(client, new_run("a", 1)) == [STALE]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_a_run_does_not_get_by_a_pause_under_way(dsn: str, client: ServicesClient, known: bool) -> None:
    """The item is busy until the pause is committed, and then paused, also where nobody knew it before."""
    name = "a" if known else "new"
    async with await opened(dsn) as operator:
        await carry_out(operator, SCHEMA, pause_schedule(name, None, NOON))
        assert await outcomes(client, new_run(name)) == [BUSY if known else RunOutcome.UNKNOWN]
        await operator.commit()
    assert await outcomes(client, new_run(name, 1)) == [STALE]


async def test_pauses_and_runs_at_the_same_time_keep_their_order(dsn: str, client: ServicesClient) -> None:
    """No run is committed between the return of a pause and the call that ends it."""
    async with ServicesClient(dsn) as operator:
        minute, paused = 0, False

        async def schedule() -> None:
            nonlocal minute
            revision = 0
            while minute < 60:
                was_paused = paused
                [outcome] = await outcomes(client, new_run("a", minute, revision=revision))
                if outcome is ADDED:
                    assert not (was_paused and paused)
                    minute += 1
                elif outcome is STALE:
                    [said] = await client.find_said_schedules()
                    revision = said.revision

        async def control() -> None:
            nonlocal paused
            while minute < 60:
                await ask(operator, pause_schedule("a", None))
                paused = True
                await asyncio.sleep(0)
                paused = False
                await ask(operator, resume_schedule("a", None))

        await asyncio.gather(schedule(), control())
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 60


async def test_nodes_scheduler_and_ours_never_wait_in_a_ring(
    dsn: str, client: ServicesClient, eventually: Eventually
) -> None:
    """It locks items in the order of its crontab. We pass over those that it holds, so only it may have to wait."""
    async with await opened(dsn) as node, await opened(dsn) as ours:
        assert await (await node.execute(NODE, [NOON, NOON, ["b"]])).fetchall() == [("b",)]
        done = await add_within(ours, [new_run("a"), new_run("b")])
        assert [one.outcome for one in done] == [ADDED, BUSY]
        going_on = asyncio.create_task(node.execute(NODE, [NOON, NOON, ["a"]]))
        await eventually(lambda: value(dsn, WAITING), lambda count: count == 1)
        await ours.commit()
        assert await (await going_on).fetchall() == []
        await node.commit()
    assert await outcomes(client, new_run("a"), new_run("b")) == [TAKEN, TAKEN]


async def test_nodes_scheduler_does_not_wait_for_an_operator(dsn: str, client: ServicesClient) -> None:
    """Whose transaction may stay open: it writes the row of a paused item, but not its key."""
    async with await opened(dsn) as operator, await opened(dsn) as node:
        await carry_out(operator, SCHEMA, pause_schedule("a", None))
        await node.execute("set lock_timeout = '5s'")
        assert await (await node.execute(NODE, [NOON, NOON, ["a"]])).fetchall() == [("a",)]
        await node.commit()
        await operator.commit()
    assert await outcomes(client, new_run("a", revision=0)) == [TAKEN]


async def test_registering_never_waits_in_a_ring(dsn: str, client: ServicesClient, eventually: Eventually) -> None:
    """Node registers several items in one transaction, in the order of its crontab."""
    async with await opened(dsn) as node:
        await node.execute(NODE, [NOON, None, ["z"]])
        registering = asyncio.create_task(client.register_schedules(["y", "z"], LONG_AGO))
        await eventually(
            lambda: rows(dsn, "select 1 from graphile_worker._private_known_crontabs where identifier = 'y'")
        )
        assert not registering.done()
        await node.execute("set lock_timeout = '5s'")
        await node.execute(NODE, [NOON, None, ["y"]])
        await node.commit()
        known = await registering
    assert (known["y"].known_since, known["z"].known_since) == (LONG_AGO, NOON)


async def test_an_item_is_registered_once(client: ServicesClient) -> None:
    """Later ones change nothing, whatever their clocks say."""
    known = await client.register_schedules(["a", "new"], NOON)
    assert (known["a"].known_since, known["new"].known_since) == (LONG_AGO, NOON)
    assert await client.register_schedules(["a", "new"], LONG_AGO) == known
    assert await ask(client, find_known_schedules(["none"])) == {}


async def test_two_operators_add_an_item_once(dsn: str) -> None:
    """One of them is told that it is there."""
    async with ServicesClient(dsn) as one, ServicesClient(dsn) as other:
        said = await asyncio.gather(*(ask(each, add_schedule("a", "* * * * * a", None)) for each in (one, other)))
    assert [row is None for row in sorted(said, key=lambda row: row is None)] == [False, True]


async def test_keys_of_runs_and_of_producers_never_wait_in_a_ring(dsn: str, client: ServicesClient) -> None:
    """Runs are added in the order of their keys, as producers of many jobs add them."""
    keys = ["k3", "k1", "k2"]
    names = [f"item{key}" for key in keys]
    await client.register_schedules(names, LONG_AGO)

    async def produce(number: int) -> None:
        for _ in range(20):
            await rows(dsn, KEYED, keys[number:] + keys[:number])

    async def schedule() -> None:
        for minute in range(40):
            runs: list[NewRun] = [
                new_run(name, minute, job_key=key) for name, key in zip(names, keys, strict=True)
            ]  # fmt: skip
            assert await outcomes(client, *runs) == [ADDED] * 3

    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await value(dsn, deadlocks)
    await asyncio.gather(produce(0), produce(1), schedule())
    assert await value(dsn, deadlocks) == before


async def test_new_names_of_tasks_and_queues_never_make_a_ring(dsn: str, client: ServicesClient) -> None:
    """Two schedulers that do different items at once, whose tasks and queues nobody has used, in crossing orders."""
    items = ("c", "d", "e", "f")
    await client.register_schedules(items, LONG_AGO)
    for minute in range(15):
        first = [new_run("c", minute, task=f"a{minute}", queue="x"), new_run("d", minute, task=f"b{minute}", queue="y")]
        second = [
            new_run("e", minute, task=f"b{minute}", queue="y"),
            new_run("f", minute, task=f"a{minute}", queue="x"),
        ]
        async with ServicesClient(dsn) as other:
            done = await asyncio.gather(outcomes(client, *first), outcomes(other, *second))
        assert done == [[ADDED, ADDED], [ADDED, ADDED]]
        await rows(dsn, "delete from graphile_worker._private_jobs")
        await rows(dsn, "delete from graphile_worker._private_job_queues")
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert await value(dsn, deadlocks) == 0
