-- does: Takes all further attempts from jobs that no worker holds, and says why; gives back their rows.
-- locks: _private_job_queues rows that are held for these jobs (update, skip locked), the _private_jobs rows (update)
-- index: tasks_pkey, job_queues_pkey1
-- params: $1 job_ids bigint[], $2 error_message text
with jobs as materialized (
  select *
  from :"schema".permanently_fail_jobs($1::bigint[], $2::text)
),
-- part: freed_for_jobs
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  (select identifier from :"schema"._private_tasks where id = jobs.task_id) as task_identifier,
  (select queue_name from :"schema"._private_job_queues where id = jobs.job_queue_id) as queue_name
from jobs
where (select queues from freed) is not null
order by jobs.id
