-- does: Deletes what code declared, where no worker has named it for 30 days. Of what workers name it writes once a day that
--   they do. Says how many rows it deleted.
-- locks: backfill_crontabs rows (update, delete)
-- index: none: the tables have a row a worker, and a row for each set of items that code declared in 30 days
-- params: none
with named as materialized (
  select workers.crontab as digest
  from :"schema".backfill_workers as workers
  where workers.crontab is not null
),
seen as (
  update :"schema".backfill_crontabs as crontabs
  set seen_at = now()
  where crontabs.digest in (select named.digest from named)
    and crontabs.seen_at < now() - interval '1 day'
),
gone as (
  delete from :"schema".backfill_crontabs as crontabs
  where greatest(crontabs.declared_at, crontabs.seen_at) < now() - interval '30 days'
    and crontabs.digest not in (select named.digest from named)
  returning crontabs.digest
)
select count(*) as deleted
from gone
