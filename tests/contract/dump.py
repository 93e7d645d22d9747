"""The schema that migrations make, as one text: what is in it, thing by thing, and who may do what with it.

It is read from the catalogues, and is the same on every version of PostgreSQL that is supported. `nox -s schema` writes
it to schema.txt beside this file; `tests/integration/storage/schema/test_schema_dump.py` compares the two.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from backfill.embedded import EmbeddedPostgres
from backfill.storage.connection import connect
from backfill.storage.grants import grants_script
from backfill.storage.schema.migrate import migrate
from contract.scripts import run_script

SCHEMA = "graphile_worker"
KEPT = Path(__file__).with_name("schema.txt")
HEADER = f"""\
The schema {SCHEMA} as migrations and the printed grants make it. `nox -s schema` writes this file.
Of a function's text only a digest stands here, which changes with the text.
"""
# Each gives lines of things: the thing, the line's rank among that thing's lines, and the line.
QUERIES: tuple[LiteralString, ...] = (
    """
    select 'schema ' || nspname, 0, '' from pg_catalog.pg_namespace where nspname = %(schema)s
    """,
    """
    select case c.relkind when 'v' then 'view ' when 'c' then 'type ' else 'table ' end || c.relname, 1,
      concat_ws(', ',
        case c.relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end,
        case when c.relkind = 'p' then 'partitioned by ' || pg_catalog.pg_get_partkeydef(c.oid) end,
        case when c.relispartition then 'partition ' || pg_catalog.pg_get_expr(c.relpartbound, c.oid) end,
        case when c.relrowsecurity then 'row level security' end,
        case when c.relforcerowsecurity then 'forced on the owner' end,
        (select 'with ' || string_agg(option, ', ' order by option collate "C") from unnest(c.reloptions) as option))
    from pg_catalog.pg_class as c
    where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'p', 'v', 'c')
    """,
    """
    select case c.relkind when 'v' then 'view ' when 'c' then 'type ' else 'table ' end || c.relname, 1000 + a.attnum,
      'column ' || concat_ws(' ', a.attname,
        pg_catalog.format_type(a.atttypid, a.atttypmod),
        case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation::text end,
        case when a.attnotnull then 'not null' end,
        case a.attidentity when 'a' then 'identity always' when 'd' then 'identity by default' end,
        case when a.attgenerated <> '' then 'generated' when d.oid is not null then 'default' end,
        pg_catalog.pg_get_expr(d.adbin, d.adrelid))
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    inner join pg_catalog.pg_type as t on t.oid = a.atttypid
    left join pg_catalog.pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'p', 'v', 'c')
    """,
    # From version 18 on, a column that is not null has a constraint as well.
    """
    select 'table ' || c.relname, 3000, 'constraint ' || o.conname || ' ' || pg_catalog.pg_get_constraintdef(o.oid)
    from pg_catalog.pg_constraint as o
    inner join pg_catalog.pg_class as c on c.oid = o.conrelid
    where o.connamespace = %(schema)s::regnamespace and o.contype <> 'n'
    """,
    """
    select 'table ' || c.relname, 3001,
      concat_ws(' ', 'index', pg_catalog.pg_get_indexdef(i.indexrelid),
        case when not i.indisvalid then 'invalid' end,
        (select 'with ' || string_agg(option, ', ' order by option collate "C") from unnest(x.reloptions) as option))
    from pg_catalog.pg_index as i
    inner join pg_catalog.pg_class as c on c.oid = i.indrelid
    inner join pg_catalog.pg_class as x on x.oid = i.indexrelid
    where c.relnamespace = %(schema)s::regnamespace
    """,
    """
    select 'table ' || c.relname, 3002,
      pg_catalog.pg_get_triggerdef(t.oid) || case t.tgenabled when 'O' then '' else ' enabled ' || t.tgenabled::text end
    from pg_catalog.pg_trigger as t
    inner join pg_catalog.pg_class as c on c.oid = t.tgrelid
    where c.relnamespace = %(schema)s::regnamespace and not t.tgisinternal
    """,
    """
    select 'table ' || c.relname, 3003,
      concat_ws(' ', 'policy', p.polname, case when p.polpermissive then 'permissive' else 'restrictive' end,
        'for', case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
          else 'all' end,
        'to', (select string_agg(r.rolname, ', ' order by r.rolname collate "C")
          from pg_catalog.pg_roles as r where r.oid = any (p.polroles)),
        'using ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid),
        'check ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p
    inner join pg_catalog.pg_class as c on c.oid = p.polrelid
    where c.relnamespace = %(schema)s::regnamespace
    """,
    """
    select 'view ' || c.relname, 3004, 'text ' || pg_catalog.pg_get_viewdef(c.oid)
    from pg_catalog.pg_class as c
    where c.relnamespace = %(schema)s::regnamespace and c.relkind = 'v'
    """,
    """
    select 'type ' || t.typname, 1, 'values ' || string_agg(e.enumlabel, ', ' order by e.enumsortorder)
    from pg_catalog.pg_enum as e
    inner join pg_catalog.pg_type as t on t.oid = e.enumtypid
    where t.typnamespace = %(schema)s::regnamespace
    group by t.typname
    """,
    """
    select 'type ' || t.typname, 1, 'domain of ' || pg_catalog.format_type(t.typbasetype, t.typtypmod)
    from pg_catalog.pg_type as t
    where t.typnamespace = %(schema)s::regnamespace and t.typtype = 'd'
    """,
    """
    select 'sequence ' || c.relname, 1,
      concat_ws(' ', pg_catalog.format_type(s.seqtypid, null), 'from', s.seqstart, 'by', s.seqincrement,
        'min', s.seqmin, 'max', s.seqmax, 'cache', s.seqcache, case when s.seqcycle then 'cycle' end,
        (select 'of ' || d.refobjid::regclass::text || '.' || a.attname
          from pg_catalog.pg_depend as d
          inner join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
          where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')))
    from pg_catalog.pg_sequence as s
    inner join pg_catalog.pg_class as c on c.oid = s.seqrelid
    where c.relnamespace = %(schema)s::regnamespace
    """,
    """
    select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', 1,
      concat_ws(' ', 'returns', pg_catalog.pg_get_function_result(p.oid), 'in', l.lanname,
        case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
        'parallel', case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end,
        case when p.proisstrict then 'strict' end,
        case when p.proleakproof then 'leakproof' end,
        case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' when 'w' then 'window' end,
        case when p.prosecdef then 'security definer' else 'security invoker' end)
    from pg_catalog.pg_proc as p
    inner join pg_catalog.pg_language as l on l.oid = p.prolang
    where p.pronamespace = %(schema)s::regnamespace
    """,
    """
    select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', 2, 'set ' || setting
    from pg_catalog.pg_proc as p
    cross join unnest(p.proconfig) as setting
    where p.pronamespace = %(schema)s::regnamespace
    """,
    """
    select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', 2,
      concat_ws(' ', 'aggregates by', a.aggtransfn::text, 'from', a.agginitval)
    from pg_catalog.pg_aggregate as a
    inner join pg_catalog.pg_proc as p on p.oid = a.aggfnoid
    where p.pronamespace = %(schema)s::regnamespace
    """,
    """
    select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', 3,
      'text ' || left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(told.body, 'UTF8')), 'hex'), 16)
    from pg_catalog.pg_proc as p
    cross join lateral (select coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)) as told (body)
    where p.pronamespace = %(schema)s::regnamespace
    """,
    # The owner may do everything, and the words for that differ by version. Where nothing is granted, the default
    # counts.
    """
    select g.thing, 5000,
      concat_ws(' ', 'granted to', case g.grantee when 0 then 'public' else g.grantee::regrole::text end || ':',
        string_agg(lower(g.privilege_type) || case when g.is_grantable then ' with grant option' else '' end, ', '
          order by g.privilege_type collate "C"))
    from (
      select 'schema ' || n.nspname as thing, n.nspowner as owner, x.*
      from pg_catalog.pg_namespace as n
      cross join pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) as x
      where n.nspname = %(schema)s
      union all
      select
        case c.relkind when 'v' then 'view ' when 'c' then 'type ' when 'S' then 'sequence ' else 'table ' end
          || c.relname,
        c.relowner, x.*
      from pg_catalog.pg_class as c
      cross join pg_catalog.aclexplode(c.relacl) as x
      where c.relnamespace = %(schema)s::regnamespace
      union all
      select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', p.proowner, x.*
      from pg_catalog.pg_proc as p
      cross join pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as x
      where p.pronamespace = %(schema)s::regnamespace
    ) as g
    where g.grantee <> g.owner
    group by g.thing, g.grantee
    """,
    """
    select 'table ' || c.relname, 5001,
      concat_ws(' ', 'granted to', case x.grantee when 0 then 'public' else x.grantee::regrole::text end || ':',
        lower(x.privilege_type), 'of column', a.attname)
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_attribute as a on a.attrelid = c.oid
    cross join pg_catalog.aclexplode(a.attacl) as x
    where c.relnamespace = %(schema)s::regnamespace and x.grantee <> c.relowner
    """,
    """
    select case c.relkind when 'v' then 'view ' when 'c' then 'type ' else 'table ' end || c.relname, 6000,
      concat_ws(' ', 'comment', a.attname || ':', d.description)
    from pg_catalog.pg_description as d
    inner join pg_catalog.pg_class as c on c.oid = d.objoid
    left join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = nullif(d.objsubid, 0)
    where d.classoid = 'pg_catalog.pg_class'::regclass and c.relnamespace = %(schema)s::regnamespace
    """,
    """
    select 'function ' || p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')', 6000,
      'comment: ' || d.description
    from pg_catalog.pg_description as d
    inner join pg_catalog.pg_proc as p on p.oid = d.objoid
    where d.classoid = 'pg_catalog.pg_proc'::regclass and p.pronamespace = %(schema)s::regnamespace
    """,
)


def dump(dsn: str, roles: dict[str, str]) -> str:
    """The schema of a database as text.

    Args:
        dsn: the database; its schema is `graphile_worker`.
        roles: names of roles, and what the text calls them.
    """
    things: dict[str, list[tuple[int, str]]] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = ''")  # so that every name comes with its schema
        for query in QUERIES:
            for thing, rank, line in connection.execute(query, {"schema": SCHEMA}):
                for name, word in roles.items():
                    line = line.replace(name, word)  # noqa: PLW2901 (before the lines are sorted)
                things.setdefault(thing, []).append((rank, line))
    return HEADER + "".join(_paragraph(thing, sorted(lines)) for thing, lines in sorted(things.items()))


def _paragraph(thing: str, lines: list[tuple[int, str]]) -> str:
    return f"\n{thing}\n" + "".join("  " + line.replace("\n", "\n    ") + "\n" for _, line in lines if line)


async def _migrate(dsn: str) -> None:
    async with await connect(dsn) as connection:
        await migrate(connection, schema=SCHEMA)


def main() -> None:
    """Make the schema on a new server, with a role of each duty, and write the text to the file."""
    with EmbeddedPostgres() as server:
        asyncio.run(_migrate(server.dsn))
        for duty in ("producer", "worker", "operator"):
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("create role {}").format(sql.Identifier(f"a_{duty}")))
            run_script(server.dsn, grants_script(duty, f"a_{duty}"))
        KEPT.write_text(dump(server.dsn, {}), encoding="utf-8")


if __name__ == "__main__":
    main()
