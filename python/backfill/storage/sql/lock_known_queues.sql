-- does: Locks those of some queues that are free and have a job ready, the ones whose first jobs come first, and leaves their
--   ids to claim.sql in the transaction's setting backfill.queues. A queue that is held for a job's retry is free for that
--   job alone. Says how many it locked, that it knows of nothing hidden
--   behind, and how many seconds that took.
-- locks: _private_job_queues rows for no key update, skip locked, until the transaction ends
-- index: backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 wanted integer, $2 forbidden_flags text[], $3 ids integer[] (then the lane's own)
-- Queues are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with free as materialized (
  select queues.id
  from unnest($3::integer[]) as known (id)
  join :"schema"._private_job_queues as queues on queues.id = any (array[known.id])
  -- part: queue_head
  where (queues.locked_at is null or queues.locked_by = 'backfill:retry:' || head.id)
  order by head.priority, head.run_at, head.id
  limit $1::integer
  for no key update of queues skip locked
)
select
  count(*)::integer,
  set_config('backfill.hidden', 'false', true),
  set_config('backfill.queues', coalesce(array_agg(id), '{}')::text, true),
  extract(epoch from clock_timestamp() - statement_timestamp())::double precision
from free
