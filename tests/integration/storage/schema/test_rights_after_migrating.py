"""What a worker's role can do after a migration, before its grants are printed and run again."""

from __future__ import annotations

from typing import LiteralString

from psycopg.conninfo import conninfo_to_dict

from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate

from plugins.roles import NewRole
from reading import rows, value

BURYING: LiteralString = """
    select oid::regprocedure::text from pg_proc
    where pronamespace = 'graphile_worker'::regnamespace and proname in ('backfill_bury', 'backfill_bury_any')"""
AGAIN: LiteralString = """
    delete from graphile_worker.backfill_migrations where name in ('attempt_rights', 'cancel_rights')"""


async def test_jobs_can_be_buried_where_new_functions_are_not_the_publics(dsn: str, role: NewRole) -> None:
    """An owner's default privileges can take new functions from the public, and those that replace old ones are new."""
    name = str(conninfo_to_dict(role("worker"))["user"])
    functions = [str(function) for (function,) in await rows(dsn, BURYING)]
    assert len(functions) == 3
    await rows(
        dsn,
        """
        do $$
        declare
          burying regprocedure;
          name text;
        begin
          for burying in
            select oid from pg_proc
            where pronamespace = 'graphile_worker'::regnamespace and proname in ('backfill_bury', 'backfill_bury_any')
          loop
            execute format('revoke execute on function %s from public', burying);
            for name in select rolname from pg_roles where rolname like 'backfill_%' loop
              execute format('revoke execute on function %s from %I', burying, name);
            end loop;
          end loop;
        end;
        $$""",
    )
    may: LiteralString = "select has_function_privilege(%s::name, %s::regprocedure, 'execute')"
    assert [await value(dsn, may, name, function) for function in functions] == [False] * 3
    await rows(dsn, AGAIN)
    async with await connect(dsn) as connection:
        await migrate(connection, schema="graphile_worker")
    assert [await value(dsn, may, name, function) for function in functions] == [True] * 3
