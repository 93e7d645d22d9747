-- does: Renews the locks of jobs that have been held for long, and of their queues, so that nobody takes them for abandoned
--   by their age; gives back each job's and queue's new time. A job replaced or removed while it runs is not renewed, only
--   its queue is.
-- locks: _private_jobs rows (update), _private_job_queues rows (update)
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[]
-- The fence is wrapped in coalesce so that the planner makes no guess of it: by statistics of a while ago nothing is locked
-- by this worker, and it would compare each of its jobs with each attempt.
with held as (
  select *
  from unnest($2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[], $6::smallint[], $7::boolean[])
    as held (id, locked_at, queue_id, queue_locked_at, attempts, keyed)
),
queues_renewed as (
  update :"schema"._private_job_queues as queues
  set locked_at = now()
  from held
  where queues.id = held.queue_id
    and coalesce(queues.locked_by = $1::text and queues.locked_at = held.queue_locked_at, false)
  returning queues.id, queues.locked_at
),
jobs_renewed as (
  update :"schema"._private_jobs as jobs
  set locked_at = now()
  from held
  where jobs.id = held.id
    and coalesce(jobs.locked_by = $1::text and jobs.locked_at = held.locked_at, false)
    and jobs.attempts = held.attempts
    and not (held.keyed and jobs.key is null)
  returning jobs.id, jobs.locked_at
),
theirs as (
  select jobs.id
  from held
  join :"schema"._private_jobs as jobs on jobs.id = held.id
  where coalesce(jobs.locked_by = $1::text and jobs.locked_at = held.locked_at, false)
)
select held.id, jobs_renewed.locked_at, queues_renewed.locked_at as queue_locked_at, theirs.id is not null as found
from held
left join jobs_renewed on jobs_renewed.id = held.id
left join queues_renewed on queues_renewed.id = held.queue_id
left join theirs on theirs.id = held.id
