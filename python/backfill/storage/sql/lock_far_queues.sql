-- does: Where lock_near_queues.sql saw too few, locks the free serial queues whose first jobs come first, going from the
--   queues' side by a loose scan, so that any number of jobs in busy queues can hide nothing. Where over 1,000 queues have
--   jobs and few of all queues are not locked, as where thousands are paused, it looks at those instead. A queue that is held
--   for a job's retry is free for that job alone. Adds to backfill.queues. Says how many it locked, how many seconds that
--   took, and which free queues it saw, in order, 10,000 at most. And the floor for lock_beyond_queues.sql: the place before
--   which no other jobs may be claimed than those of the watched queues, which it names (null where these are too many); and
--   the time at which all this was so.
-- locks: _private_job_queues rows for no key update, skip locked, until the transaction ends
-- index: backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 wanted integer, $2 forbidden_flags text[] (then the lane's own)
-- Queues are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with recursive
-- part: waiting_queues
,
near as materialized (
  select current_setting('backfill.queues')::integer[] as ids
),
heads as materialized (
  select queues.id, head.priority, head.run_at, head.id as job_id
  from either as queues
  -- part: queue_head
  where (queues.locked_at is null or starts_with(queues.locked_by, 'backfill:retry:'))
    and queues.id <> all ((select ids from near)::integer[])
  order by head.priority, head.run_at, head.id
  limit 10000
),
-- part: serial_floor
,
free as materialized (
  select queues.id
  from heads
  join :"schema"._private_job_queues as queues on queues.id = any (array[heads.id])
  where (queues.locked_at is null or queues.locked_by = 'backfill:retry:' || heads.job_id)
  order by heads.priority, heads.run_at, heads.job_id
  limit $1::integer
  for no key update of queues skip locked
)
select
  count(*)::integer,
  set_config(
    'backfill.queues',
    ((select ids from near) || coalesce(array_agg(id), '{}'))::text,
    true
  ) as queues,
  extract(epoch from clock_timestamp() - statement_timestamp())::double precision as seconds,
  (select coalesce(array_agg(heads.id order by heads.priority, heads.run_at, heads.job_id), '{}')::text from heads) as seen,
  (select priority from edge) as floor_priority,
  (select run_at from edge) as floor_run_at,
  (select job_id from edge) as floor_id,
  now() as looked_at,
  (select coalesce(array_agg(distinct watched.id), '{}')::text from watched having count(*) <= 1000) as watched
from free
