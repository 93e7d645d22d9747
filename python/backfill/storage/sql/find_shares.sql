-- does: Gives the shares that some jobs have, which a worker has locked: the job, the limit's task and value, and the slot.
-- locks: none
-- index: backfill_shares_job, jobs_pkey1
-- params: $1 worker text, $2 held bigint[]
select shares.job_id, shares.task, shares.value, min(shares.slot) as slot
from unnest($2::bigint[]) as held (id)
cross join lateral (
  -- looked up for each job, so that no plan can begin with all slots
  select slots.job_id, slots.task, slots.value, slots.slot
  from :"schema".backfill_shares as slots
  where slots.job_id = any (array[held.id])
    and coalesce(slots.worker = $1::text, false)
  limit 100
) as shares
join :"schema"._private_jobs as jobs on jobs.id = any (array[held.id])
where coalesce(jobs.locked_by = $1::text, false)
group by shares.job_id, shares.task, shares.value
