-- does: Looks at the next values of a limit that have waiting jobs, and takes the first jobs of all of them, as long as their
--   values have shares, for claim_taken.sql in the same transaction. Says which jobs it took, with their values, slots, and in
--   how many seconds they may start (null: ahead, without a share); the value after which the next look begins (null: the
--   first); and what take_shares.sql says. Of each value it looks at the first waiting jobs, 10,000 of all values at most.
-- locks: _private_jobs, backfill_shares and backfill_limit_states rows for update, _private_job_queues rows for no key update
-- index: backfill_jobs_limited, job_queues_pkey1
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 task text, $5 by_path text, $6 task_ids integer[],
--   $7 after text, $8 values integer, $9 ahead_values text[], $10 ahead_counts integer[] (then the lane's own)
with recursive walk (value, seen) as (
  select coalesce($7::text, '') collate "C", 0
  union all
  select
    (
      select min(first.value collate "C")
      from unnest($6::integer[]) as tasks (id)
      cross join lateral (
        select :"schema".backfill_limit_value(jobs.flags) collate "C" as value
        from :"schema"._private_jobs as jobs
        where jobs.is_available = true and jobs.flags ? 'backfill.limited'
          and jobs.task_id = tasks.id
          and :"schema".backfill_limit_value(jobs.flags) collate "C" > walk.value
        order by :"schema".backfill_limit_value(jobs.flags) collate "C"
        limit 1
      ) as first
    ),
    walk.seen + 1
  from walk
  where walk.value is not null and walk.seen < $8::integer
),
looked as materialized (
  select value, row_number() over (order by value) as number, count(*) over () as count
  from (select value from walk where value is not null and (seen > 0 or $7::text is null)
    union select unnest($9::text[]) collate "C"
  ) as values_there
),
heads as materialized (
  select looked.number, waiting.id, waiting.priority, waiting.run_at, waiting.job_queue_id
  from looked
  cross join unnest($6::integer[]) as tasks (id)
  cross join lateral (
    select jobs.id, jobs.priority, jobs.run_at, jobs.job_queue_id, jobs.task_id, jobs.flags
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true and jobs.flags ? 'backfill.limited'
      and jobs.task_id = tasks.id
      and :"schema".backfill_limit_value(jobs.flags) collate "C" = looked.value
      and jobs.run_at <= now()
    order by jobs.priority, jobs.run_at, jobs.id
    limit least(greatest(20, 10000 / looked.count), 100 + 4 * $2::integer)
  ) as waiting
  cross join lateral (
    select from (select waiting.*) as jobs where jobs.job_queue_id is null
      -- lane: parallel
    union all
    select from (select waiting.*) as jobs
    join :"schema"._private_job_queues as queues on queues.id = any (array[jobs.job_queue_id])
    where (queues.locked_at is null or queues.locked_by = 'backfill:retry:' || jobs.id)
      -- lane: serial
  ) as passing
  where not waiting.flags ?| $3::text[]
)
select
  (
    select json_agg(json_build_array(job, of_value, slot, start))
    from unnest(took.taken, took.values_taken, took.slots, took.starts) as one (job, of_value, slot, start)
  )::text as shares,
  (select max(value) from walk where seen = $8::integer) as after, took.wait, took.is_full, took.is_busy, took.is_stale
from (
  select
    array(select value from looked order by number) as looked,
    array_agg(id order by priority, run_at, id) as ids,
    array_agg(number::integer order by priority, run_at, id) as numbers,
    array_agg(job_queue_id order by priority, run_at, id) as queues
  from heads
) as found
cross join lateral :"schema".backfill_take_values(
  $4::text, $5::text, $1::text, $2::integer, $6::integer[], found.looked,
  array(select ($10::integer[])[array_position($9::text[], value)] from looked order by number),
  found.ids, found.numbers, found.queues
) as took
