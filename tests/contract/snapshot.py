"""All that can be told of a schema.

The catalogue and what it leaves out, so that two ways to one schema can be compared.
"""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg

from contract.catalog import catalogue, nameless

Snapshot = dict[str, dict[str, str]]
_MORE: dict[str, LiteralString] = {
    "index names": """
        select c.relname, pg_get_indexdef(indexrelid) || case when indisvalid then '' else ' invalid' end
        from pg_index i join pg_class c on c.oid = i.indexrelid where c.relnamespace = %(s)s::regnamespace""",
    "constraint names": """
        select conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = %(s)s::regnamespace and conrelid <> 0 and contype <> 'n'""",
    "column order": """
        select c.relname, string_agg(a.attname, ', ' order by a.attnum)
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = %(s)s::regnamespace and c.relkind in ('r', 'v', 'c', 'p') group by c.relname""",
    "function bodies": """
        select p.proname || '(' || pg_get_function_arguments(p.oid) || ')',
               l.lanname || case when p.proisstrict then ' strict ' else ' ' end
                 || coalesce(p.proconfig::text, '') || coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)
        from pg_proc p join pg_language l on l.oid = p.prolang where p.pronamespace = %(s)s::regnamespace""",
    "views": """
        select relname, pg_get_viewdef(oid) from pg_class where relnamespace = %(s)s::regnamespace and relkind = 'v'""",
    "sequences": """
        select relname, relkind::text from pg_class where relnamespace = %(s)s::regnamespace and relkind = 'S'""",
    "storage": """
        select c.relname, coalesce(array_to_string(array(select unnest(c.reloptions) order by 1), ', '), '')
        from pg_class c where c.relnamespace = %(s)s::regnamespace and c.relkind = 'r'""",
    "policies": """
        select p.polrelid::regclass::text || ' ' || p.polname, p.polcmd::text || p.polroles::regrole[]::text
        from pg_policy p join pg_class c on c.oid = p.polrelid where c.relnamespace = %(s)s::regnamespace""",
    "grants": """
        select relname, relacl::text from pg_class where relnamespace = %(s)s::regnamespace and relacl is not null""",
    "comments": """
        select c.relname || ' ' || d.objsubid, d.description from pg_description d join pg_class c on c.oid = d.objoid
        where d.classoid = 'pg_class'::regclass and c.relnamespace = %(s)s::regnamespace""",
}
_LEDGER: LiteralString = "select id::text, concat_ws(' ', name, breaking, skipped) from {schema}.backfill_migrations"


def snapshot(dsn: str, schema: str, *, ledger: bool = True) -> Snapshot:
    """The schema by part, under the name {schema}; with our own ledger, where it has one."""
    found = catalogue(dsn, schema)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = ''")  # so that every name comes with its schema
        row = connection.execute("select quote_ident(%s)", (schema,)).fetchone()
        assert row is not None
        quoted = row[0]
        queries = _MORE | ({"ledger": _LEDGER} if ledger else {})
        for part, query in queries.items():
            text = cast("LiteralString", query.replace("{schema}", quoted.replace("%", "%%")))
            rows: list[Any] = connection.execute(text, {"s": quoted}).fetchall()
            found[part] = {_plain(k, schema, quoted): _plain(v, schema, quoted) for k, v in sorted(rows)}
    return found


def _plain(text: str, schema: str, quoted: str) -> str:
    """A text in which the schema's name, quoted as the server or as the driver quotes it, is {schema}."""
    return nameless(nameless(text, '"' + schema.replace('"', '""') + '"'), quoted)
