"""The upkeep of limits: a worker has them worked out again, and sweeps their slots."""

from __future__ import annotations

from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill.client.lent import ServicesClient
from backfill.storage.schema.steps import migrations
from backfill.storage.statements import render_text
from backfill.worker.upkeep.limits import LimitKeeper
from share_takers import TASK, Field, Taker, session

from plugins.roles import NewRole
from reading import rows, value

LIMITS = "select count(*) from graphile_worker.backfill_limits"
STATES = "select count(*) from graphile_worker.backfill_limit_states"
SLOTS = "select count(*) from graphile_worker.backfill_shares"


async def test_a_missed_change_is_made_up_for(dsn: str) -> None:
    """A limit that stands in no row of workers and of operators any more is gone after a round."""
    await rows(dsn, "insert into graphile_worker.backfill_limits (task, most, source) values ('old', 4, 'worker')")
    async with ServicesClient(dsn) as client:
        assert list(await client.find_limits()) == ["old"]
        await LimitKeeper(client, worker=lambda: "nobody").tend()
        assert await client.find_limits() == {}
    assert await value(dsn, LIMITS) == 0


async def test_the_first_worker_sweeps(dsn: str) -> None:
    """It goes on until little is left; another worker leaves the slots alone."""
    add = "insert into graphile_worker.backfill_workers (id, host, pid, protocol, version) values (%s, 'h', 1, 3, '0')"
    await rows(dsn, add, "w1")
    await rows(dsn, add, "w2")
    await rows(
        dsn,
        """
        insert into graphile_worker.backfill_limit_states (task, value, next_at, slots)
        select 't', 'v' || n, now() - interval '1 hour', 1 from generate_series(1, 1200) as n
        """,
    )
    await rows(
        dsn,
        """
        insert into graphile_worker.backfill_shares (task, value, slot, turn, job_id, worker, attempt)
        select 't', 'v' || n, 1, 1, n, 'gone', 1 from generate_series(1, 1200) as n
        """,
    )
    async with ServicesClient(dsn) as client:
        await LimitKeeper(client, worker=lambda: "w2").tend()
        assert await value(dsn, SLOTS) == 1200
        await LimitKeeper(client, worker=lambda: "w1").tend()
    assert await value(dsn, SLOTS) == await value(dsn, STATES) == 0


async def test_a_producer_leaves_it_to_others(dsn: str, role: NewRole) -> None:
    """A producer's role may not work limits out, and reaches none of their tables and functions."""
    producer = role("producer")
    async with ServicesClient(producer) as client:
        await LimitKeeper(client, worker=lambda: "nobody").tend()  # which complains of nothing, and changes nothing
    calls = (
        "resolve_limits()",
        "take_shares('t', null, 1, 0)",
        "lock_slots('t', '', 1, 1)",
        "lock_state('t', '')",
        "lock_job(1, 1, '', '{1}')",
        "rate_room(now(), now(), 1, 1, 1)",
        "take_values('t', null, 'w', 1, '{1}', '{a}', '{0}', '{1}', '{1}', '{1}')",
    )
    with psycopg.connect(producer, autocommit=True) as connection:
        for call in calls:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(cast("LiteralString", f"select graphile_worker.backfill_{call}"))
        for table in ("limits", "limit_states", "shares"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(cast("LiteralString", f"select from graphile_worker.backfill_{table}"))


@pytest.mark.leaves_rows
async def test_a_worker_takes_shares_with_its_grants(dsn: str, role: NewRole) -> None:
    """With the printed grants, and with those of the version before after the migration; it cannot set limits itself."""
    worker = role("worker")
    name = conninfo_to_dict(worker)["user"]
    async with await session(dsn) as outside, await session(worker) as inside:
        field = Field(outside)
        await field.add(20)
        await field.limit(3, (1000, 1.0, 10))
        taker = Taker(inside, "taker", field)
        assert (await taker.take(2)).granted == 2
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await inside.execute("delete from graphile_worker.backfill_limits")
        for table in ("limits", "limit_states", "shares"):
            await rows(
                dsn, cast("LiteralString", f"drop policy backfill_worker_{name} on graphile_worker.backfill_{table}")
            )
            await rows(dsn, cast("LiteralString", f"revoke all on graphile_worker.backfill_{table} from {name}"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await taker.take(2)
        [rights] = [one for one in migrations() if one.name == "share_rights"]
        await rows(dsn, render_text(rights.text[rights.text.index("do $body$") :], "graphile_worker"))
        assert (await taker.take(2)).granted == 1
        await taker.send(taker.complete(*taker.running))
        async with ServicesClient(worker) as client:
            await LimitKeeper(client, worker=lambda: "nobody").tend()
            assert list(await client.find_limits()) == [TASK]
            assert await client.sweep_shares() in (0, 1)
