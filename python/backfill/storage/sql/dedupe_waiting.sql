-- does: Adds a batch of jobs with keys that waited where no job of the key is, in the order of the keys; a job that is there only
--   gets its revision raised. No key comes twice in a batch. Gives back the ids by their places.
-- locks: the _private_jobs rows of those keys (update)
-- index: jobs_key_key1, tasks_identifier_key, job_queues_queue_name_key
-- params: $1 batch integer
with added as (
  insert into :"schema"._private_jobs as jobs (
    task_id, job_queue_id, payload, priority, run_at, max_attempts, flags, key
  )
  select
    (select tasks.id from :"schema"._private_tasks as tasks where tasks.identifier = waiting.identifier),
    (select queues.id from :"schema"._private_job_queues as queues where queues.queue_name = waiting.queue_name),
    waiting.payload,
    waiting.priority,
    waiting.run_at,
    waiting.max_attempts,
    waiting.flags::jsonb,
    waiting.key
  from pg_temp.bulk_waiting as waiting
  where waiting.batch = $1::integer
  order by waiting.key
  on conflict (key) do update
  set revision = jobs.revision + 1, updated_at = now()
  returning jobs.id, jobs.key
)
select added.id, waiting.place
from added
join pg_temp.bulk_waiting as waiting on waiting.batch = $1::integer and waiting.key = added.key collate "C"
