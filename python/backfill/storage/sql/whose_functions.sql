-- does: Says whose add_job and add_jobs are: ours, unfinished (ours, but somebody may still be in another program's), replaced
--   (another program has put its own in their place), engine (the Rust engine has), theirs (another program made the schema),
--   or migrating (it was to hold them, and another program is just migrating). Where it holds them, they stay so until the
--   transaction ends. And in which database of which server, and whether somebody is at work on what is unfinished.
-- locks: where it holds them, the contract's ledger (share), without waiting
-- index: none: it asks the catalogue by name
-- params: $1 hold boolean, $2 schema text
select
  found.whose,
  format('%s of the server that was started at %s', current_database(), pg_postmaster_start_time()) as database,
  found.whose = 'unfinished' and exists (
    select
    from pg_locks as locks
    where locks.locktype = 'advisory'
      and locks.granted
      and locks.objsubid = 1
      and locks.database = (select oid from pg_database where datname = current_database())
      and (locks.classid::bigint << 32) | locks.objid::bigint = hashtextextended('backfill.migrate:' || $2::text, 0)
  ) as under_way
from :"schema".backfill_whose_functions($1::boolean) as found (whose)
