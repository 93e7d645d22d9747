-- does: Removes the job of a key, or, while it runs, takes its key and further attempts; gives back the row, if there was one.
-- locks: _private_job_queues rows that are held for these jobs (update, skip locked), the _private_jobs row of that key (delete or update)
-- index: tasks_pkey, job_queues_pkey1
-- params: $1 job_key text
with jobs as materialized (
  select *
  from :"schema".remove_job($1::text)
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
