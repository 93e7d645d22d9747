-- does: Deletes the dead letters of jobs that complete in the next statement: those of their keys, and those that they were
--   requeued from. What is not this worker's any more leaves its entry: it was unlocked, and may have been deleted since; so
--   does a newer job of the key, and what failed after the attempt was claimed: another has run the job since. The entry of a
--   batch's key holds items that only the job does which was requeued from it.
-- locks: _private_jobs rows (those that are about to be deleted), then backfill_dlq rows (delete) in the order of their ids
-- index: backfill_dlq_key, backfill_dlq_pkey, jobs_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 keys text[], $5 entries bigint[],
--   $6 claimed_ats timestamptz[], $7 batches boolean[] (whether the job is a batch)
-- Jobs and entries are found by `any (array[...])` where an equality would do, keys behind a limit: by an equality the planner
-- could as well begin with all of them. What else is asked of a row is wrapped in coalesce: so no other index serves it, and
-- the planner makes no guess of it.
with done as materialized (
  select jobs.id, done.key, done.entry, done.claimed_at, done.batch
  from unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::bigint[], $6::timestamptz[], $7::boolean[])
    as done (id, locked_at, key, entry, claimed_at, batch)
  join :"schema"._private_jobs as jobs on jobs.id = any (array[done.id])
  where coalesce(jobs.locked_by = $1::text and jobs.locked_at = done.locked_at, false)
  for update of jobs
),
found as (
  select entries.id, done.id as job_id, done.claimed_at, done.batch
  from done
  cross join lateral (
    select entries.id
    from :"schema".backfill_dlq as entries
    where entries.job_key = done.key
      and coalesce(entries.original_job_id <= done.id, true)
      and coalesce(entries.failed_at <= done.claimed_at, false)
      and coalesce(not done.batch or entries.requeued_job_id = done.id, false)
    limit 1
  ) as entries
  union
  select entries.id, done.id as job_id, done.claimed_at, done.batch
  from done
  join :"schema".backfill_dlq as entries on entries.id = any (array[done.entry])
  where entries.job_key is null
    and entries.requeued_job_id = done.id
    and coalesce(entries.failed_at <= done.claimed_at, false)
),
gone as materialized (
  select found.id, found.job_id, found.claimed_at, found.batch
  from found
  order by found.id
)
delete from :"schema".backfill_dlq as entries
using gone
where entries.id = any (array[gone.id])
  and coalesce(entries.failed_at <= gone.claimed_at, false)
  -- once more on the row itself, which may have been renewed meanwhile
  and case
    when entries.job_key is null or gone.batch then entries.requeued_job_id = gone.job_id
    else coalesce(entries.original_job_id <= gone.job_id, true)
  end
