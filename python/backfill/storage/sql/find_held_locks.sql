-- does: Gives the locks that a worker has on the jobs that it holds in its memory: each lock's time, the job's attempts, and its
--   queue's lock's time where that is the worker's too. It finds the jobs by their ids, so that its cost does not grow with
--   the dead rows of jobs that ran before.
-- locks: none
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text, $2 held bigint[]
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
where jobs.id = any ($2::bigint[])
  and coalesce(jobs.locked_by = $1::text and jobs.locked_at is not null, false)
