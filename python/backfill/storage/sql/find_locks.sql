-- does: Gives the jobs that a worker has locked, each with its lock's time, its attempts, and its queue's lock's time where that
--   is the worker's too: what it holds in its memory is compared with them.
-- locks: none
-- index: backfill_jobs_locked, job_queues_pkey1
-- params: $1 worker text
select
  jobs.id, jobs.locked_at, jobs.attempts::bigint as attempts,
  (
    -- looked up for each job, so that no plan can begin with all queues
    select queues.locked_at
    from :"schema"._private_job_queues as queues
    where queues.id = jobs.job_queue_id
      and coalesce(queues.locked_by = $1::text, false)
  ) as queue_locked_at
from :"schema"._private_jobs as jobs
where jobs.locked_at is not null
  and jobs.locked_by = $1::text
