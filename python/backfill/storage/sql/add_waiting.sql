-- does: Adds a batch of jobs with keys that waited, or applies them to the jobs of their keys, in the order of the keys; no key
--   comes twice in a batch. Gives back their ids by their places.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: the function's own statements are served by jobs_key_key1, tasks_identifier_key, job_queues_queue_name_key
-- params: $1 batch integer, $2 job_key_preserve_run_at boolean
select jobs.id, waiting.place
from :"schema".add_jobs(
  array(
    select cast(
      row(identifier, payload, queue_name, run_at, max_attempts, key, priority, flags::text[])
      as :"schema".job_spec
    )
    from pg_temp.bulk_waiting
    where batch = $1::integer
    order by key
  ),
  $2::boolean
) as jobs
join pg_temp.bulk_waiting as waiting on waiting.batch = $1::integer and waiting.key = jobs.key collate "C"
