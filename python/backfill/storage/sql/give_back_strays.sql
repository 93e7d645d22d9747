-- does: Gives back the jobs that are locked by this worker though it does not hold them (the answer to a claim was lost), as
--   give_back.sql does, and frees their queues; says which jobs they were.
-- locks: _private_jobs rows (update, delete), skip locked: they are looked for again; _private_job_queues rows (update)
-- index: backfill_jobs_locked, job_queues_pkey1
-- params: $1 worker text, $2 held bigint[]
with strays as (
  select
    jobs.id, jobs.job_queue_id, jobs.locked_at,
    jobs.key is null and jobs.attempts >= jobs.max_attempts and jobs.updated_at > jobs.locked_at as superseded
  from :"schema"._private_jobs as jobs
  where jobs.locked_at is not null
    and jobs.locked_by = $1::text
    and jobs.id <> all ($2::bigint[])
  for update of jobs skip locked
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  from strays
  where queues.id = strays.job_queue_id
    and queues.locked_by = $1::text
    and queues.locked_at = strays.locked_at
),
gone as (
  delete from :"schema"._private_jobs as jobs
  using strays
  where jobs.id = strays.id
    and strays.superseded
),
returned as (
  update :"schema"._private_jobs as jobs
  set attempts = greatest(jobs.attempts - 1, 0), locked_by = null, locked_at = null
  from strays
  where jobs.id = strays.id
    and not strays.superseded
)
select id
from strays
