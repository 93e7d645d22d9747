-- does: Reads one job as producers see it: without its payload and its error.
-- locks: none
-- index: none: its work is done in a function
-- params: $1 id bigint
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  names.task_identifier, names.queue_name
from :"schema".backfill_see_job($1::bigint) as jobs
cross join lateral :"schema".backfill_see_names(jobs.task_id, jobs.job_queue_id) as names
