-- does: Writes a worker's row, and the items that its code declares; says how many workers are alive that know a task of its,
--   and gives a number that is another one after each change of what operators say.
-- locks: its backfill_workers row (insert), the backfill_crontabs row of its items (insert, update)
-- index: none: the table has a row a worker
-- params: $1 id text, $2 host text, $3 pid integer, $4 protocol integer, $5 lanes jsonb, $6 tasks text[], $7 version text,
--   $8 dead_after interval, $9 limits jsonb (by task), $10 place jsonb, $11 crontab text (the digest of its items, or null),
--   $12 items jsonb, $13 is_scheduling boolean
with declared as (
  insert into :"schema".backfill_crontabs as crontabs (digest, items)
  select $11::text, $12::jsonb
  where $11::text is not null
  on conflict (digest) do update set declared_at = now()
),
added as (
  insert into :"schema".backfill_workers (
    id, host, pid, started_at, heartbeat_at, protocol, lanes, tasks, version, dead_after, limits, place, crontab, is_scheduling
  )
  values (
    $1::text, $2::text, $3::integer, now(), now(), $4::integer, $5::jsonb, $6::text[], $7::text, $8::interval, $9::jsonb,
    $10::jsonb, $11::text, $13::boolean
  )
)
select
  1 + count(*)::integer as alive, (select :"schema".backfill_tell_engine($1::text, true)),
  -- part: said
  as said
from :"schema".backfill_workers
where id <> $1::text
  and heartbeat_at > now() - dead_after
  and tasks && $6::text[]
