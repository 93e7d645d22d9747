-- does: Gives the ends of some jobs that are over, and whether each job is there still, all as of one moment. Times are in
--   microseconds, null where they are infinite.
-- locks: none
-- index: backfill_ends_job, jobs_pkey1
-- params: $1 ids bigint[]
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
select
  wanted.id,
  exists (select from :"schema"._private_jobs as jobs where jobs.id = any (array[wanted.id])) as waits,
  -- part: end_columns
from unnest($1::bigint[]) as wanted (id)
left join :"schema".backfill_ends as ends
  on ends.job_id = any (array[wanted.id])
  and ends.expires_at > now()
