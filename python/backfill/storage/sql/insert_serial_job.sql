-- does: Adds one serial job without a key whose task and queue are known already, tells the workers, and gives back the row;
--   no row, and nothing done, where one of them is new.
-- locks: its _private_tasks and _private_job_queues rows for key share
-- index: tasks_identifier_key, job_queues_queue_name_key
-- params: $1 identifier text, $2 payload json, $3 run_at timestamptz, $4 delay interval, $5 max_attempts integer,
--   $6 priority integer, $7 flags jsonb, $8 queue_name text
with added as (
  insert into :"schema"._private_jobs as jobs (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
  select
    tasks.id,
    queues.id,
    $2::json,
    coalesce($3::timestamptz, clock_timestamp() + coalesce($4::interval, '0')),
    $5::integer,
    $6::integer,
    $7::jsonb
  from :"schema"._private_tasks as tasks
  cross join :"schema"._private_job_queues as queues
  where tasks.identifier = $1::text
    and queues.queue_name = $8::text
  for key share
  returning
    jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
    jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags
)
select *
from added
-- void is not null: a filter, so that the result has no column of it
where pg_notify('jobs:insert', json_build_object('r', random(), 'count', 1)::text) is not null
