-- does: Adds a batch of jobs that waited, all in one mode, or without keys, for a producer, without telling the workers.
--   Gives back their ids and their places; no row, and nothing done, where a task or a serial queue is missing.
-- locks: the _private_jobs rows of those keys (update), their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function, on rows of the temporary table
-- params: $1 batch integer, $2 job_key_mode text
with waiting as materialized (
  select
    array_agg(identifier order by key, place) as identifiers,
    array_agg(queue_name order by key, place) as queue_names,
    array_agg(payload::text order by key, place) as payloads,
    array_agg(priority::integer order by key, place) as priorities,
    array_agg(run_at order by key, place) as run_ats,
    array_agg(max_attempts::integer order by key, place) as max_attempts,
    array_agg(
      (select jsonb_object_agg(flag, true)::text from unnest(flags::text[]) as flag) order by key, place
    ) as flags,
    array_agg(key order by key, place) as keys,
    array_agg(place order by key, place) as places
  from pg_temp.bulk_waiting
  where batch = $1::integer
),
added as (
  select jobs.id, row_number() over (order by jobs.key collate "C", jobs.id) as number
  from waiting
  cross join lateral :"schema".backfill_gather_producer_jobs(
    waiting.identifiers, waiting.queue_names, waiting.payloads, waiting.priorities, waiting.run_ats, null,
    waiting.max_attempts, waiting.flags, waiting.keys, $2::text, false, null
  ) as jobs
)
select added.id, waiting.places[added.number] as place
from added
cross join waiting
