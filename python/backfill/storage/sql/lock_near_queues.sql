-- does: Locks the free serial queues whose jobs come first among the first 2,000 available serial jobs, and leaves their
--   ids to claim.sql in the transaction's setting backfill.queues. A queue that is held for a job's retry is free for that
--   job alone. Says how many it locked, whether more may lie behind (in backfill.hidden, too), and how many seconds that
--   took.
-- locks: _private_job_queues rows for no key update, skip locked, until the transaction ends
-- index: backfill_jobs_serial_scan, job_queues_pkey1
-- params: $1 wanted integer, $2 forbidden_flags text[], $3 lows smallint[], $4 highs smallint[] (then the lane's own)
-- Queues are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with scan as materialized (
  select waiting.*
  from unnest($3::smallint[], $4::smallint[]) as span (low, high)
  cross join lateral (
    select level.*
    from (
      select job_queue_id, task_id, priority, run_at, id, flags
      from :"schema"._private_jobs
      where is_available = true
        and job_queue_id is not null
        and span.low = span.high
        and priority = span.low
        and run_at <= now()
      order by run_at, id
      limit 2000
    ) as level
    union all
    -- part: serial_gap
  ) as waiting
  limit 2000
),
-- part: first_queues
,
noted as (
  select
    count(*) as locked,
    (count(*) < $1::integer and (select count(*) from scan) = 2000)::text as hidden,
    coalesce(array_agg(id), '{}')::text as queues
  from free
)
select
  locked::integer,
  set_config('backfill.hidden', hidden, true),
  set_config('backfill.queues', queues, true),
  extract(epoch from clock_timestamp() - statement_timestamp())::double precision
from noted
