"""What a worker's role can do after a migration, before its grants are printed and run again."""

from __future__ import annotations

from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

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
