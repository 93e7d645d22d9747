"""Runs of recurring items as a scheduler sends them, for the tests of the statements that add and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg

from backfill.client.asking import carry_out
from backfill.client.lent import ServicesClient
from backfill.client.verbs.asked import Asked
from backfill.client.verbs.schedules import add_runs
from backfill.storage.schedules import NewRun, RunDone, RunOutcome
from backfill.storage.types import Connection

SCHEMA = "graphile_worker"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=1)
NODE: LiteralString = """
insert into graphile_worker._private_known_crontabs as known (identifier, known_since, last_execution)
select identifier, %s, %s from unnest(%s::text[]) as items (identifier)
on conflict (identifier) do update set last_execution = excluded.last_execution
where known.last_execution is null or known.last_execution < excluded.last_execution
returning identifier
"""
"""Writes rows of items as Node's scheduler does: in the order of its crontab, whatever that is."""


def new_run(identifier: str, minute: int = 0, **settings: Any) -> NewRun:
    """A run of an item, so many minutes after noon."""
    run = NOON + timedelta(minutes=minute)
    return NewRun(**{"identifier": identifier, "run": run, "task": "t", "payload": b"{}", "run_at": run, **settings})


async def outcomes(client: ServicesClient, *runs: NewRun) -> list[RunOutcome]:
    """What becomes of runs."""
    return [done.outcome for done in await client.add_runs(runs)]


async def ask(client: ServicesClient, asked: Asked[Any]) -> Any:
    """What a verb answers on a connection of the client's."""
    return await client._run(asked)


async def add_within(connection: Connection, runs: Sequence[NewRun]) -> list[RunDone]:
    """What becomes of runs within a transaction that is open, and stays so."""
    return await carry_out(connection, SCHEMA, add_runs(runs))


async def opened(dsn: str) -> Connection:
    """A connection whose first statement begins a transaction."""
    return cast("Connection", await psycopg.AsyncConnection.connect(dsn))
