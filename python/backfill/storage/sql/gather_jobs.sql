-- does: Adds the jobs of several calls together, with keys (of one mode, none twice) and without, and tells the workers
--   once, or not at all; gives back their rows. No row, and nothing done, where a task or a serial queue is missing.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 queue_names text[], $3 payloads text[], $4 priorities integer[],
--   $5 run_ats timestamptz[], $6 delays interval[], $7 max_attempts integer[], $8 flags text[] (each an object's text),
--   $9 job_keys text[], $10 job_key_mode text, $11 tell boolean, $12 patience text
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags
from :"schema".backfill_gather_jobs(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[], $6::interval[], $7::integer[], $8::text[],
  $9::text[], $10::text, $11::boolean, $12::text
) as jobs
