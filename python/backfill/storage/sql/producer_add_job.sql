-- does: Adds one job for a producer, or applies it to the job of its key, and gives it back as producers see it; no row if it
--   lost a race for the key.
-- locks: the _private_jobs row of that key (update), its _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifier text, $2 payload json, $3 queue_name text, $4 run_at timestamptz, $5 delay interval,
--   $6 max_attempts integer, $7 job_key text, $8 priority integer, $9 flags text[], $10 job_key_mode text
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  names.task_identifier, names.queue_name
from :"schema".backfill_add_job(
  $1::text,
  $2::json,
  $3::text,
  coalesce($4::timestamptz, clock_timestamp() + coalesce($5::interval, '0')),
  $6::integer,
  $7::text,
  $8::integer,
  $9::text[],
  $10::text
) as jobs
cross join lateral :"schema".backfill_see_names(jobs.task_id, jobs.job_queue_id) as names
