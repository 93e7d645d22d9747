-- does: Adds a batch of jobs without keys that waited, for a producer, in order, and tells the workers. Gives back their ids
--   and their places.
-- locks: their _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function, on rows of the temporary table
-- params: $1 batch integer
with waiting as materialized (
  select
    array_agg(identifier order by place) as identifiers,
    array_agg(queue_name order by place) as queue_names,
    array_agg(payload::text order by place) as payloads,
    array_agg(priority::integer order by place) as priorities,
    array_agg(run_at order by place) as run_ats,
    array_agg(max_attempts::integer order by place) as max_attempts,
    array_agg(flags order by place) as flags,
    array_agg(place order by place) as places
  from pg_temp.bulk_waiting
  where batch = $1::integer
)
select added.id, waiting.places[added.number] as place
from waiting
cross join lateral :"schema".backfill_add_keyless_jobs(
  waiting.identifiers, waiting.queue_names, waiting.payloads, waiting.priorities, waiting.run_ats, waiting.max_attempts,
  waiting.flags
) with ordinality as added (id, number)
