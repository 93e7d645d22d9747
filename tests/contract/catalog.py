"""Write the catalogue of one PostgreSQL schema as JSON: what other programs can see of it, without a line of its code.

usage: catalog.py DSN SCHEMA            print the catalogue
       catalog.py DSN SCHEMA FILE.json  compare with a kept one; print each difference; exit 1 if anything that FILE has
                                        is missing or differs

Things that the database has and FILE lacks (own tables, own indexes) are allowed and only listed.
Needs psycopg 3. The schema's name is written as {schema}, so a copy under another name compares equal.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import LiteralString, cast

import psycopg

Catalogue = dict[str, dict[str, str]]
QUERIES: dict[str, LiteralString] = {
    "columns": """
        select c.relname || '.' || a.attname,
               format('%%s%%s%%s%%s', format_type(a.atttypid, a.atttypmod),
                      case when a.attnotnull then ' not null' else '' end,
                      case a.attidentity when 'a' then ' identity always' when 'd' then ' identity default' else '' end,
                      case when a.attgenerated = 's' then ' generated ' || pg_get_expr(d.adbin, d.adrelid)
                           when d.adbin is not null then ' default ' || pg_get_expr(d.adbin, d.adrelid) else '' end)
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = %(s)s::regnamespace and c.relkind in ('r', 'v', 'c', 'p')""",
    "kinds": """
        select relname,
               case relkind when 'r' then 'table' when 'v' then 'view' when 'c' then 'type' else relkind::text end
               || case when relrowsecurity then ', row level security' else '' end
        from pg_class where relnamespace = %(s)s::regnamespace and relkind in ('r', 'v', 'c', 'p')""",
    "constraints": """
        select conrelid::regclass::text || ' ' || pg_get_constraintdef(oid), contype::text
        from pg_constraint where connamespace = %(s)s::regnamespace and conrelid <> 0 and contype <> 'n'""",
    "indexes": """
        select regexp_replace(pg_get_indexdef(indexrelid), '^(CREATE (UNIQUE )?INDEX) [^ ]+ ON', '\\1 ON'), 'index'
        from pg_index i join pg_class c on c.oid = i.indexrelid where c.relnamespace = %(s)s::regnamespace""",
    "functions": """
        select p.proname || '(' || pg_get_function_arguments(p.oid) || ')',
               pg_get_function_result(p.oid)
               || case p.provolatile when 'i' then ' immutable' when 's' then ' stable' else ' volatile' end
               || case when p.prosecdef then ' security definer' else '' end
        from pg_proc p where p.pronamespace = %(s)s::regnamespace""",
    "triggers": """
        select t.tgrelid::regclass::text || ' ' || t.tgname, t.tgtype::text || ' ' || p.proname
        from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = %(s)s::regnamespace and not t.tgisinternal""",
    "migrations": "select id::text, 'breaking: ' || breaking::text from {schema}.migrations",
}


def catalogue(dsn: str, schema: str) -> Catalogue:
    """What the schema has, by part: each thing's name and what it is."""
    found: Catalogue = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set search_path = ''")  # so that every name comes with its schema
        row = connection.execute("select quote_ident(%s)", (schema,)).fetchone()
        assert row is not None
        quoted = row[0]
        for part, query in QUERIES.items():
            text = cast("LiteralString", query.replace("{schema}", quoted.replace("%", "%%")))
            rows = connection.execute(text, {"s": quoted}).fetchall()
            found[part] = {nameless(key, quoted): nameless(value, quoted) for key, value in sorted(rows)}
    return found


def nameless(text: str, quoted: str) -> str:
    """A text in which the schema's name, as the server quotes it before what is in it, is {schema}."""
    return re.sub(rf'(?<![\w"]){re.escape(quoted)}(?=\.)', "{schema}", text)


def differences(have: Catalogue, want: Catalogue) -> list[str]:
    """What `want` has and `have` lacks or has otherwise, a text each."""
    return [
        f"{part}: {key}\n   wanted {value}\n   found  {have.get(part, {}).get(key, 'nothing')}"
        for part, entries in want.items()
        for key, value in entries.items()
        if have.get(part, {}).get(key) != value
    ]


def contract() -> Catalogue:
    """The catalogue that other programs rely on: Graphile Worker 0.17.3's."""
    return json.loads(Path(__file__).with_name("graphile_worker_0.17.3.json").read_text(encoding="utf-8"))


def main() -> int:
    """Print a catalogue, or compare it with a kept one."""
    dsn, schema, *rest = sys.argv[1:]
    have = catalogue(dsn, schema)
    if not rest:
        print(json.dumps(have, indent=1))
        return 0
    want = json.loads(Path(rest[0]).read_text(encoding="utf-8"))
    short = differences(have, want)
    for text in short:
        print(text)
    for part, entries in want.items():
        for key in have.get(part, {}).keys() - entries.keys():
            print(f"{part}: beyond the contract: {key}")
    total = sum(map(len, want.values()))
    print(f"{total - len(short)} of {total} entries hold")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
