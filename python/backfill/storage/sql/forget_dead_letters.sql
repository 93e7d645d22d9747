-- does: Deletes the dead letters of jobs that have just completed: those of their keys, and those that they were requeued
--   from. A job that is there still was not this worker's to complete, and keeps its entry.
-- locks: backfill_dlq rows (delete), in the order of their ids
-- index: backfill_dlq_key, backfill_dlq_pkey, jobs_pkey1
-- params: $1 ids bigint[], $2 keys text[], $3 entries bigint[]
with done as (
  select *
  from unnest($1::bigint[], $2::text[], $3::bigint[]) as done (id, key, entry)
),
found as (
  select entries.id, done.id as job_id
  from done
  join :"schema".backfill_dlq as entries on entries.job_key = done.key
  union
  select entries.id, done.id as job_id
  from done
  join :"schema".backfill_dlq as entries on entries.id = done.entry
),
gone as materialized (
  select found.id
  from found
  where not exists (select from :"schema"._private_jobs as jobs where jobs.id = found.job_id)
  order by found.id
)
delete from :"schema".backfill_dlq as entries
using gone
where entries.id = gone.id
