-- does: Inserts a batch of new jobs without keys that waited, with the ids that were drawn for them. Their tasks and queues are
--   there, and held.
-- locks: none but the new rows
-- index: tasks_identifier_key, job_queues_queue_name_key
-- params: $1 batch integer
insert into :"schema"._private_jobs (id, task_id, job_queue_id, payload, priority, run_at, max_attempts, flags)
overriding system value
select
  waiting.place,
  (select tasks.id from :"schema"._private_tasks as tasks where tasks.identifier = waiting.identifier),
  (select queues.id from :"schema"._private_job_queues as queues where queues.queue_name = waiting.queue_name),
  waiting.payload,
  waiting.priority,
  waiting.run_at,
  waiting.max_attempts,
  waiting.flags::jsonb
from pg_temp.bulk_waiting as waiting
where waiting.batch = $1::integer
order by waiting.place
