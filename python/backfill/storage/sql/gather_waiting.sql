-- does: Adds a batch of jobs with keys that waited, all in one mode, as add_waiting does, but without telling the workers.
--   Gives back their ids by their places; no row, and nothing done, where a task or a serial queue is missing.
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
    array_agg((select jsonb_object_agg(flag, true)::text from unnest(flags::text[]) as flag) order by key) as flags,
    array_agg(key order by key) as keys
  from pg_temp.bulk_waiting
  where batch = $1::integer
)
select added.id, places.place
from waiting
cross join lateral :"schema".backfill_gather_jobs(
  waiting.identifiers, waiting.queue_names, waiting.payloads, waiting.priorities, waiting.run_ats, null,
  waiting.max_attempts, waiting.flags, waiting.keys, $2::text, false, null
) as added
join pg_temp.bulk_waiting as places on places.batch = $1::integer and places.key = added.key collate "C"
