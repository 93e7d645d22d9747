-- does: Adds jobs with keys for a producer, or applies them to the jobs of their keys, all in one mode, and tells the
--   workers; no key may come twice. Gives back their ids by key.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 queue_names text[], $3 payloads text[], $4 priorities integer[],
--   $5 run_ats timestamptz[], $6 max_attempts integer[], $7 flags text[] (each an array's text), $8 job_keys text[],
--   $9 job_key_mode text
select added_id, added_key
from :"schema".backfill_add_keyed_jobs(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[], $6::integer[], $7::text[], $8::text[], $9::text
)
