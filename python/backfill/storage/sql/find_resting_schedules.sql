-- does: Lists the items that code declared and that no live worker declares, as they were declared last, and when a worker that
--   declares them started last (Unix microseconds).
-- locks: none
-- index: none: the tables have a row a worker, and a row for each set of items that code declared in 30 days
-- params: none
with declared as materialized (
  select crontabs.items, crontabs.declared_at, crontabs.digest = any (array(
      select workers.crontab
      from :"schema".backfill_workers as workers
      where workers.heartbeat_at > now() - workers.dead_after
        and workers.given_up_at is null
    )) as is_live
  from :"schema".backfill_crontabs as crontabs
  where jsonb_typeof(crontabs.items) = 'object'
)
select distinct on (item.identifier)
  item.identifier, item.line, (extract(epoch from declared.declared_at) * 1000000)::bigint as declared_at
from declared
cross join lateral jsonb_each_text(declared.items) as item (identifier, line)
where declared.is_live is not true
  and item.line is not null
  and not exists (select from declared as live where live.is_live and live.items ? item.identifier)
order by item.identifier, declared.declared_at desc
