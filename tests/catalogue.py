"""What a schema consists of, object by object, so that two moments of it can be compared."""

from __future__ import annotations

from typing import LiteralString

from reading import rows

_OBJECTS: LiteralString = """
with space as (select to_regnamespace(%s) as id),
relations as (select * from pg_class where relnamespace = (select id from space))
select 'relation ' || relname, jsonb_build_array(relkind, relpersistence, relrowsecurity, relforcerowsecurity, relacl,
    obj_description(oid, 'pg_class'), array(select unnest(reloptions) order by 1))::text
  from relations where relkind <> 'i'
union all
select 'column ' || relname || '.' || attname, jsonb_build_array(attnum, format_type(atttypid, atttypmod), attnotnull,
    attidentity, attgenerated, pg_get_expr(adbin, adrelid), attacl, attoptions)::text
  from relations
  join pg_attribute on attrelid = relations.oid and attnum > 0 and not attisdropped
  left join pg_attrdef on adrelid = attrelid and adnum = attnum
  where relkind <> 'i'
union all
select 'index ' || relname, jsonb_build_array(pg_get_indexdef(indexrelid), indisvalid)::text
  from relations join pg_index on indexrelid = relations.oid
union all
select 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
  from pg_constraint where connamespace = (select id from space)
union all
select 'function ' || oid::regprocedure, jsonb_build_array(pg_get_functiondef(oid), proacl)::text
  from pg_proc where pronamespace = (select id from space)
union all
select 'view ' || relname, pg_get_viewdef(oid) from relations where relkind in ('v', 'm')
union all
select 'sequence ' || relname,
    jsonb_build_array(format_type(seqtypid, null), seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)::text
  from relations join pg_sequence on seqrelid = relations.oid
union all
select 'policy ' || relname || '.' || polname, jsonb_build_array(polcmd, polpermissive, polroles::regrole[]::text,
    pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))::text
  from relations join pg_policy on polrelid = relations.oid
union all
select 'trigger ' || relname || '.' || tgname, pg_get_triggerdef(pg_trigger.oid)
  from relations join pg_trigger on tgrelid = relations.oid where not tgisinternal
union all
select 'type ' || typname, jsonb_build_array(typtype, typcategory, format_type(typbasetype, typtypmod), typacl)::text
  from pg_type where typnamespace = (select id from space) and typtype <> 'b'
"""


async def catalogue(dsn: str) -> dict[str, str]:
    """The definition of each object of the queue's schema, by kind and name, and the rows of Node's ledger."""
    objects = await rows(dsn, _OBJECTS, "graphile_worker")
    ledger = await rows(dsn, "select 'migration ' || id, row(ts, breaking)::text from graphile_worker.migrations")
    found = dict(objects) | dict(ledger)
    assert len(found) == len(objects) + len(ledger), "a name came twice"
    return found
