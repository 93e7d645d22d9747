-- does: Finds which of the jobs that a worker holds were cancelled, and by whom, why and when; gives the database's time
--   beside each, in a row without an id where none was.
-- locks: none
-- index: jobs_pkey1
-- params: $1 worker text, $2 held bigint[]
-- The time is read after the snapshot was taken: a job whose claim began later cannot have been cancelled before.
select
  found.id, found.flag ->> 'reason' as reason, found.flag ->> 'by' as cancelled_by, found.flag ->> 'at' as cancelled_at,
  (extract(epoch from clock_timestamp() - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint as looked_at
from (select) as always
left join lateral (
  select jobs.id, jobs.flags -> 'backfill.cancel' as flag
  from :"schema"._private_jobs as jobs
  where jobs.id = any ($2::bigint[])
    and coalesce(jobs.locked_by = $1::text and jobs.flags ? 'backfill.cancel', false)
) as found on true
