-- does: Adds jobs with keys, or applies them to the jobs of their keys, in the order of the keys, so that two producers
--   never wait for each other in a ring; no key may come twice. Gives back their ids by key.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: the function's own statements are served by jobs_key_key1, tasks_identifier_key, job_queues_queue_name_key
-- params: $1 identifiers text[], $2 payloads text[], $3 queue_names text[], $4 run_ats timestamptz[],
--   $5 max_attempts smallint[], $6 job_keys text[], $7 priorities smallint[], $8 flags text[] (each an array's text),
--   $9 job_key_preserve_run_at boolean
select jobs.id, jobs.key
from :"schema".add_jobs(
  array(
    select cast(
      row(identifier, payload::json, queue_name, run_at, max_attempts, job_key, priority, flags::text[])
      as :"schema".job_spec
    )
    from unnest(
      $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::smallint[], $6::text[], $7::smallint[], $8::text[]
    ) as specs (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags)
    order by job_key collate "C"
  ),
  $9::boolean
) as jobs
