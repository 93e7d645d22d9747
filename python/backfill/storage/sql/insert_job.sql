-- does: Adds one job without a key whose task and serial queue are known already, tells the workers, and gives back the
--   row; no row, and nothing done, where a name is new.
-- locks: its _private_tasks and _private_job_queues rows for key share
-- index: tasks_identifier_key, job_queues_queue_name_key
-- params: $1 identifier text, $2 payload json, $3 queue_name text, $4 run_at timestamptz, $5 delay interval,
--   $6 max_attempts integer, $7 priority integer, $8 flags jsonb
with task as (
  select id
  from :"schema"._private_tasks
  where identifier = $1::text
  for key share
),
queue as (
  select id
  from :"schema"._private_job_queues
  where queue_name = $3::text
  for key share
),
added as (
  insert into :"schema"._private_jobs as jobs (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
  select
    task.id,
    queue.id,
    $2::json,
    coalesce($4::timestamptz, clock_timestamp() + $5::interval, now()),
    $6::integer,
    $7::integer,
    $8::jsonb
  from task
  left join queue on true
  where $3::text is null or queue.id is not null
  returning
    jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
    jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags
),
told as materialized (
  select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
  from added
  having count(*) > 0
)
select added.*
from added, told
