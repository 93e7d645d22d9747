-- does: Deletes counts of days that are over so many days old, so many rows at most; says how many they were.
-- locks: backfill_counters rows (delete), skip locked: another worker deletes those
-- index: backfill_counters_pkey
-- params: $1 days integer, $2 wanted integer
with old as (
  select counters.ctid
  from :"schema".backfill_counters as counters
  where counters.span = 'day'
    and counters.started < now() - $1::integer * interval '1 day'
  order by counters.span, counters.started, counters.task, counters.worker
  limit $2::integer
  for update of counters skip locked
),
gone as (
  delete from :"schema".backfill_counters as counters
  where counters.ctid = any (array(select old.ctid from old))
  returning 1
)
select count(*) as taken
from gone
