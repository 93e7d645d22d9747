"""`client.schedules` beside other operators, and beside rows that somebody else has written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from backfill import BackfillClient, ScheduleNotFoundError, ScheduleState
from declaring import declare

from plugins.waiting import Eventually
from reading import rows, value

NIGHTLY = "0 4 * * * report"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_two_operators_change_an_item_at_once(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """Each changes one setting, and none undoes what the other one has changed meanwhile."""
    await client.schedules.add(NIGHTLY)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.schedules.change("report", when="@daily", connection=connection)
        other = asyncio.create_task(client.schedules.change("report", queue="reports"))

        async def waits() -> bool:
            waiting = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            return bool(await value(dsn, waiting) == 1)

        await eventually(waits)
        await connection.commit()
    assert (await other).line == "0 0 * * * report ?queue=reports"


async def test_a_change_of_what_there_is_not_leaves_nothing_behind(dsn: str, client: BackfillClient) -> None:
    """Not even if the caller's transaction is committed after the error."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(ScheduleNotFoundError):
            await client.schedules.change("raport", when="@daily", connection=connection)
        await connection.commit()
    assert await value(dsn, "select count(*) from graphile_worker._private_known_crontabs") == 0


async def test_rows_that_hold_no_lines(dsn: str, client: BackfillClient) -> None:
    """A worker's role may write any row by plain SQL; all other items are listed all the same."""
    await declare(dsn, "one", NIGHTLY)
    for digest, items in (("a", "[1]"), ("b", "5"), ("c", "null"), ("d", '{"odd": null}')):
        insert = (
            f"insert into graphile_worker.backfill_crontabs (digest, items) values ('{digest}', '{items}') returning 1"
        )
        await rows(dsn, insert)
    [info] = await client.schedules.list()
    assert (info.identifier, info.state) == ("report", ScheduleState.ACTIVE)
