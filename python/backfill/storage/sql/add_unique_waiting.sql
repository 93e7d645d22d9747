-- does: Adds the jobs with unique_for that waited, in the order of their keys, without telling the workers; those whose
--   keys are reserved are not added. Gives back the places of all, with the ids of the jobs that have the keys, and
--   whether the key was reserved.
-- locks: for one key after the other: the backfill_reservations row (insert, update), then the _private_jobs row (update),
--   its _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function, on rows of the temporary table
-- params: $1 batches integer[], $2 job_key_modes text[] (one for each of these batches)
with ordered as materialized (
  select
    waiting.place, waiting.identifier, waiting.payload, waiting.queue_name, waiting.run_at, waiting.max_attempts,
    waiting.key, waiting.priority, waiting.flags, modes.mode, waiting.unique_for
  from unnest($1::integer[], $2::text[]) as modes (batch, mode)
  join pg_temp.bulk_waiting as waiting on waiting.batch = modes.batch
  order by waiting.key, waiting.place
)
select ordered.place, (done.job).id as id, done.kept as kept
from ordered
cross join lateral :"schema".backfill_add_unique(
  ordered.identifier, ordered.payload, ordered.queue_name, ordered.run_at, ordered.max_attempts::integer, ordered.key,
  ordered.priority::integer, ordered.flags::text[], ordered.mode, ordered.unique_for, false
) as done
