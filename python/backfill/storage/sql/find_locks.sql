-- does: Gives the jobs that a worker has locked, each with its lock's time, its attempts, and its queue's lock's time where that
--   is the worker's too: what it holds in its memory is compared with them.
-- locks: none
-- index: backfill_jobs_locked, job_queues_pkey1
-- params: $1 worker text
select jobs.id, jobs.locked_at, jobs.attempts::bigint as attempts, queues.locked_at as queue_locked_at
from :"schema"._private_jobs as jobs
left join :"schema"._private_job_queues as queues
  on queues.id = jobs.job_queue_id
  and coalesce(queues.locked_by = $1::text, false)
where jobs.locked_at is not null
  and jobs.locked_by = $1::text
