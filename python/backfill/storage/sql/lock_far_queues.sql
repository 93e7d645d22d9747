-- does: Where lock_near_queues.sql saw too few, locks the free serial queues whose first jobs come first, going from the
--   queues' side by a loose scan, so that any number of jobs in busy queues can hide nothing. Where over 1,000 queues have
--   jobs and few of all queues are not locked, as where thousands are paused, it looks at those instead. A queue that is held
--   for a job's retry is free for that job alone. Adds to backfill.queues. Says how many it locked, how many seconds that
--   took, and which free queues it saw, in order, 10,000 at most.
-- locks: _private_job_queues rows for no key update, skip locked, until the transaction ends
-- index: backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 wanted integer, $2 forbidden_flags text[] (then the lane's own)
-- Queues are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with recursive waiting as (
  (
    select jobs.job_queue_id
    from :"schema"._private_jobs as jobs
    where current_setting('backfill.hidden') = 'true'
      and jobs.is_available = true
      and jobs.job_queue_id is not null
    order by jobs.job_queue_id
    limit 1
  )
  union all
  select (
    select jobs.job_queue_id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.job_queue_id > waiting.job_queue_id
    order by jobs.job_queue_id
    limit 1
  )
  from waiting
  where waiting.job_queue_id is not null
),
looked_at as materialized (
  select queues.id, queues.locked_at is null or starts_with(queues.locked_by, 'backfill:retry:') as open
  from :"schema"._private_job_queues as queues
  where (select count(*) from (select from waiting limit 1001) as first) > 1000
  order by queues.id
  limit 100001
),
few as materialized (
  select coalesce(array_agg(looked_at.id) filter (where looked_at.open), '{}') as ids
  from looked_at
  having count(*) between 1 and 100000 and count(*) filter (where looked_at.open) <= 5000
),
either as (
  select waiting.job_queue_id
  from waiting
  where not exists (select from few)
  union all
  select unnest(ids) from few
),
heads as materialized (
  select queues.id, head.priority, head.run_at, head.id as job_id
  from either
  join :"schema"._private_job_queues as queues on queues.id = any (array[either.job_queue_id])
  -- part: queue_head
  where (queues.locked_at is null or starts_with(queues.locked_by, 'backfill:retry:'))
    and queues.id <> all (current_setting('backfill.queues')::integer[])
  order by head.priority, head.run_at, head.id
  limit 10000
),
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
    (current_setting('backfill.queues')::integer[] || coalesce(array_agg(id), '{}'))::text,
    true
  ),
  extract(epoch from clock_timestamp() - statement_timestamp())::double precision,
  (select coalesce(array_agg(heads.id order by heads.priority, heads.run_at, heads.job_id), '{}')::text from heads)
from free
