-- does: Gives the ends of some jobs that are over, and whether each job may still run, all as of one moment. A job whose
--   attempts are used up and that nobody holds was failed by hand, or by another program, and does not run again. Times are
--   in microseconds, null where they are infinite.
-- locks: none
-- index: backfill_ends_job, jobs_pkey1
-- params: $1 ids bigint[]
select
  wanted.id,
  exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.id = wanted.id
      and (jobs.attempts < jobs.max_attempts or jobs.locked_at is not null)
  ) as waits,
  -- part: end_columns
from unnest($1::bigint[]) as wanted (id)
left join :"schema".backfill_ends as ends
  on ends.job_id = wanted.id
  and ends.expires_at > now()
