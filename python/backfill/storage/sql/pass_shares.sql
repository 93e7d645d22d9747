-- does: Passes the shares of some jobs that end to other jobs that the worker has claimed; says which of these have a share then.
--   A job that has lost its slot to somebody else has none to pass. It may be repeated where its answer was lost.
-- locks: backfill_shares rows (update)
-- index: backfill_shares_job, jobs_pkey1
-- params: $1 worker text, $2 from_jobs bigint[], $3 to_jobs bigint[]
with passed as (
  update :"schema".backfill_shares as shares
  set
    job_id = ($3::bigint[])[array_position($2::bigint[], shares.job_id)], turn = shares.turn + 1, locked_at = now(),
    attempt = coalesce((
      select jobs.attempts
      from :"schema"._private_jobs as jobs
      where jobs.id = any (array[($3::bigint[])[array_position($2::bigint[], shares.job_id)]])
    ), 0)
  where shares.job_id = any ($2::bigint[])
    and coalesce(shares.worker = $1::text, false)
  returning shares.job_id
)
select job_id
from passed
union
select shares.job_id
from :"schema".backfill_shares as shares
where shares.job_id = any ($3::bigint[])
  and coalesce(shares.worker = $1::text, false)
