-- does: Changes when and how jobs run that no worker holds, by their ids or keys; what is null stays; gives back their rows.
-- locks: the _private_jobs rows (update)
-- index: jobs_key_key1, tasks_pkey, job_queues_pkey1
-- params: $1 job_ids bigint[], $2 run_at timestamptz, $3 delay interval, $4 priority integer, $5 attempts integer,
--   $6 max_attempts integer, $7 job_keys text[]
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  (select identifier from :"schema"._private_tasks where id = jobs.task_id) as task_identifier,
  (select queue_name from :"schema"._private_job_queues where id = jobs.job_queue_id) as queue_name
from :"schema".reschedule_jobs(
  $1::bigint[] || array(select keyed.id from :"schema"._private_jobs as keyed where keyed.key = any($7::text[])),
  coalesce($2::timestamptz, clock_timestamp() + $3::interval),
  $4::integer,
  $5::integer,
  $6::integer
) as jobs
order by jobs.id
