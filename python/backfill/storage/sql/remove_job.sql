-- does: Removes the job of an id, if no worker holds it, or of a key; one of a key that runs loses its key and its further
--   attempts. The key is free then, if it was reserved. Gives back the row, if there was one.
-- locks: _private_job_queues rows that are held for these jobs (update, skip locked), the _private_jobs row (delete or update), then
--   the backfill_reservations row of its key (delete, skip locked)
-- index: tasks_pkey, job_queues_pkey1
-- params: $1 job_id bigint, $2 job_key text
with jobs as materialized (
  select *
  from :"schema".backfill_remove_any_job($1::bigint, $2::text)
),
-- part: freed_for_jobs
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  (select identifier from :"schema"._private_tasks where id = jobs.task_id) as task_identifier,
  (select queue_name from :"schema"._private_job_queues where id = jobs.job_queue_id) as queue_name
from jobs
where jobs.id is not null
  and (select queues from freed) is not null
