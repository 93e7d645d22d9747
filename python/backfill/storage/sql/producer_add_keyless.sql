-- does: Adds jobs without keys for a producer, in order, and tells the workers; gives back their ids, in order.
-- locks: their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 queue_names text[], $3 payloads text[], $4 priorities integer[],
--   $5 run_ats timestamptz[], $6 max_attempts integer[], $7 flags text[] (each an array's text)
select id
from :"schema".backfill_add_keyless_jobs(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[], $6::integer[], $7::text[]
) as id
