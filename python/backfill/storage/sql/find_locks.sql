-- does: Gives all jobs that a worker has locked, each with its lock's time, its attempts, and its queue's lock's time where that
--   is the worker's too. It reads the dead rows of all jobs that the worker ran before, so it is for rare looks and after
--   lost answers; find_held_locks.sql is for the others.
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
