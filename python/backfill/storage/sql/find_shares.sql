-- does: Gives the shares that some jobs have, which a worker has locked: the job, the limit's task and value, and the slot.
-- locks: none
-- index: backfill_shares_job, jobs_pkey1
-- params: $1 worker text, $2 held bigint[]
select shares.job_id, shares.task, shares.value, min(shares.slot) as slot
from :"schema".backfill_shares as shares
join :"schema"._private_jobs as jobs on jobs.id = any (array[shares.job_id])
where shares.job_id = any ($2::bigint[])
  and coalesce(shares.worker = $1::text and jobs.locked_by = $1::text, false)
group by shares.job_id, shares.task, shares.value
