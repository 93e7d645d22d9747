-- does: Deletes the dead letters of jobs that have just completed: those of their keys, and those that they were requeued
--   from. A job that is there still was not this worker's to complete, and keeps its entry; so does a newer job of the key,
--   and what failed after the attempt was claimed: another has run the job since.
-- locks: backfill_dlq rows (delete), in the order of their ids
-- index: backfill_dlq_key, backfill_dlq_pkey, jobs_pkey1
-- params: $1 ids bigint[], $2 keys text[], $3 entries bigint[], $4 claimed_ats timestamptz[]
with done as (
  select *
  from unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[]) as done (id, key, entry, claimed_at)
),
found as (
  select entries.id, done.id as job_id, done.claimed_at
  from done
  join :"schema".backfill_dlq as entries on entries.job_key = done.key
  where coalesce(entries.original_job_id <= done.id, true)
    and entries.failed_at <= done.claimed_at
  union
  select entries.id, done.id as job_id, done.claimed_at
  from done
  join :"schema".backfill_dlq as entries on entries.id = done.entry
  where entries.job_key is null
    and entries.requeued_job_id = done.id
    and entries.failed_at <= done.claimed_at
),
gone as materialized (
  select found.id, found.job_id, found.claimed_at
  from found
  where not exists (select from :"schema"._private_jobs as jobs where jobs.id = found.job_id)
  order by found.id
)
delete from :"schema".backfill_dlq as entries
using gone
where entries.id = gone.id
  and entries.failed_at <= gone.claimed_at
  -- once more on the row itself, which may have been renewed meanwhile
  and case
    when entries.job_key is null then entries.requeued_job_id = gone.job_id
    else coalesce(entries.original_job_id <= gone.job_id, true)
  end
