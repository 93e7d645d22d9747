-- does: Adds a batch of jobs with keys that waited, or applies them to the jobs of their keys, all in one mode, for a producer,
--   and tells the workers; no key comes twice in a batch. Gives back their ids and their places.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function, on rows of the temporary table
-- params: $1 batch integer, $2 job_key_mode text
with waiting as materialized (
  select
    array_agg(identifier order by key) as identifiers,
    array_agg(queue_name order by key) as queue_names,
    array_agg(payload::text order by key) as payloads,
    array_agg(priority::integer order by key) as priorities,
    array_agg(run_at order by key) as run_ats,
    array_agg(max_attempts::integer order by key) as max_attempts,
    array_agg(flags order by key) as flags,
    array_agg(key order by key) as keys
  from pg_temp.bulk_waiting
  where batch = $1::integer
)
select added.added_id as id, places.place
from waiting
cross join lateral :"schema".backfill_add_keyed_jobs(
  waiting.identifiers, waiting.queue_names, waiting.payloads, waiting.priorities, waiting.run_ats, waiting.max_attempts,
  waiting.flags, waiting.keys, $2::text
) as added
join pg_temp.bulk_waiting as places on places.batch = $1::integer and places.key = added.added_key collate "C"
