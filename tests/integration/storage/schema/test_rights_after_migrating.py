"""What a worker's role can do after a migration, before its grants are printed and run again."""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, EnqueueStatus
from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate

from plugins.roles import NewRole
from reading import rows, value

BURY: LiteralString = """graphile_worker.backfill_bury(
    bigint, text, text, json, integer, text, integer, integer, jsonb, timestamptz, timestamptz, text, text, json)"""
MAY: LiteralString = "select has_function_privilege(%s::name, %s::regprocedure, 'execute')"
AGAIN: LiteralString = "delete from graphile_worker.backfill_migrations where name = 'attempt_rights'"


async def test_jobs_can_be_buried_where_new_functions_are_not_the_publics(dsn: str, role: NewRole) -> None:
    """An owner's default privileges can take new functions from the public, as the one with records is."""
    name = str(conninfo_to_dict(role("worker"))["user"])
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(
            sql.SQL("revoke execute on function {} from public, {}").format(sql.SQL(BURY), sql.Identifier(name))
        )
    assert not await value(dsn, MAY, name, BURY)
    await rows(dsn, AGAIN)
    async with await connect(dsn) as connection:
        await migrate(connection, schema="graphile_worker")
    assert await value(dsn, MAY, name, BURY)


UNIQUE: LiteralString = """
graphile_worker.backfill_add_unique(
  text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean),
graphile_worker.backfill_add_producer_unique(
  text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean),
graphile_worker.backfill_free_reservations(text[], bigint[]), graphile_worker.backfill_remove_any_job(bigint, text)"""
TABLE = "graphile_worker.backfill_reservations"
RIGHTS: LiteralString = "delete from graphile_worker.backfill_migrations where name = 'reservation_rights'"


@pytest.mark.parametrize("duty", ["worker", "producer"])
async def test_keys_can_be_reserved_after_a_migration(dsn: str, role: NewRole, duty: str) -> None:
    """A role whose grants were printed before has the functions, and a worker's the table."""
    theirs = role(duty)
    name = sql.Identifier(str(conninfo_to_dict(theirs)["user"]))
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(sql.SQL("revoke execute on function {} from public, {}").format(sql.SQL(UNIQUE), name))
        owner.execute(sql.SQL("revoke all on graphile_worker.backfill_reservations from {}").format(name))
        for (policy,) in owner.execute(
            "select polname from pg_policy where polrelid = %s::regclass", [TABLE]
        ).fetchall():
            dropped = sql.SQL("drop policy {} on graphile_worker.backfill_reservations")
            owner.execute(dropped.format(sql.Identifier(policy)))
    async with BackfillClient(theirs) as client:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.enqueue("t", job_key="k", unique_for=timedelta(days=1))
    await rows(dsn, RIGHTS)
    async with await connect(dsn) as connection:
        await migrate(connection, schema="graphile_worker")
    async with BackfillClient(theirs) as client:
        done = await client.enqueue("t", job_key="k", unique_for=timedelta(days=1))
        assert (await client.enqueue("t", job_key="k", unique_for=timedelta(days=1))).id == done.id
        await client.remove_job(id=done)
        again = await client.enqueue("t", job_key="k", unique_for=timedelta(days=1))
        assert again.status is EnqueueStatus.ADDED
