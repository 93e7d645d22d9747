-- does: Adds jobs with keys where no job of the key is, in the order of the keys; a job that is there only gets its
--   revision raised (unsafe_dedupe, for many at once). No key may come twice. Gives back the ids by key.
-- locks: the _private_jobs rows of those keys (update)
-- index: jobs_key_key1
-- params: $1 task_ids integer[], $2 job_queue_ids integer[], $3 payloads text[], $4 priorities smallint[],
--   $5 run_ats timestamptz[], $6 max_attempts smallint[], $7 flags text[], $8 job_keys text[]
insert into :"schema"._private_jobs as jobs (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags, key)
select task_id, job_queue_id, payload::json, priority, run_at, max_attempts, flags::jsonb, job_key
from unnest(
  $1::integer[], $2::integer[], $3::text[], $4::smallint[], $5::timestamptz[], $6::smallint[], $7::text[], $8::text[]
) as specs (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags, job_key)
order by job_key collate "C"
on conflict (key) do update
set revision = jobs.revision + 1, updated_at = now()
returning jobs.id, jobs.key
