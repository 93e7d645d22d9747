-- does: Claims for a worker the jobs that take_values.sql has locked in this transaction; raises their attempts and locks their
--   queues.
-- locks: _private_jobs and _private_job_queues rows that are locked already
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text
with claimed as (
  update :"schema"._private_jobs as jobs
  set attempts = jobs.attempts + 1, locked_by = $1::text, locked_at = now(), updated_at = now()
  where jobs.id = any (nullif(current_setting('backfill.taken', true), '')::bigint[])
  returning jobs.*
),
queued as (
  update :"schema"._private_job_queues as queues
  set locked_by = $1::text, locked_at = now()
  from claimed
  where queues.id = any (array[claimed.job_queue_id])
  returning queues.id, queues.queue_name
)
select
  claimed.id, claimed.job_queue_id, claimed.task_id, claimed.payload, claimed.priority, claimed.run_at,
  claimed.attempts, claimed.max_attempts, claimed.last_error, claimed.created_at, claimed.updated_at, claimed.key,
  claimed.locked_at, claimed.locked_by, claimed.revision, claimed.flags, queued.queue_name
from claimed
left join queued on queued.id = claimed.job_queue_id
