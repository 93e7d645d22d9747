-- does: Gives the ends of some jobs that are over, and whether each job may still run, all as of one moment. A job whose
--   attempts are used up and that nobody holds was failed by hand, or by another program, and does not run again. Times are
--   in microseconds, null where they are infinite.
-- locks: none
-- index: backfill_ends_job, jobs_pkey1
-- params: $1 ids bigint[]
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
-- The order keeps it from the index of the newest ends, which has the ids second and would be read from end to end.
select
  wanted.id,
  exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.id = any (array[wanted.id])
      and (jobs.attempts < jobs.max_attempts or jobs.locked_at is not null)
  ) as waits,
  -- part: end_columns
from unnest($1::bigint[]) as wanted (id)
left join lateral (
  select ends.*
  from :"schema".backfill_ends as ends
  where ends.job_id = any (array[wanted.id])
    and ends.expires_at > now()
  order by ends.job_id
) as ends on true
