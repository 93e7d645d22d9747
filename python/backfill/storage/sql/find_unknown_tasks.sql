-- does: Finds tasks that no live worker knows and whose jobs are due for so many seconds: how many, since when the oldest is (Unix
--   microseconds), and whether all of them were looked at. Looks at the longest due of each priority from its floor on, so many
--   at most: its cost grows neither with the backlog nor with dead rows before the floors. Only the live worker with the
--   smallest id gets an answer, those of an older protocol left out, which may not know to ask. A task of which another
--   program's worker has locked a job of late is that worker's. Beside each, and in a row of its own where none is found:
--   whether this worker was answered, the time, the priorities that jobs wait in, and a sum of the tasks that are known.
-- locks: none
-- index: jobs_main_index, tasks_pkey, backfill_jobs_locked
-- params: $1 lows smallint[], $2 highs smallint[], $3 floors timestamptz[], $4 worker text, $5 looked_at integer,
--   $6 due_for double precision, $7 wanted integer
with recursive alive as materialized (
  select workers.id, workers.protocol, workers.tasks
  from :"schema".backfill_workers as workers
  where workers.heartbeat_at > now() - workers.dead_after
),
asked as materialized (
  select $4::text = (
    select min(alive.id)
    from alive
    where alive.protocol >= (select workers.protocol from :"schema".backfill_workers as workers where workers.id = $4::text)
  ) as first
),
spans as materialized (
  select span.low, span.high, span.floor
  from unnest($1::smallint[], $2::smallint[], $3::timestamptz[]) as span (low, high, floor)
  where (select first from asked)
),
-- part: waiting_levels
, front as materialized (
  select levels.priority, longest.task_id, longest.run_at
  from levels
  cross join lateral (
    select jobs.task_id, jobs.run_at
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority = levels.priority
      and jobs.run_at >= coalesce((select floor from spans where low = levels.priority and low = high), '-infinity')
      and jobs.run_at <= now() - $6::double precision * interval '1 second'
    order by jobs.run_at
    limit $5::integer
  ) as longest
),
unknown as (
  select due.identifier, due.jobs, due.oldest
  from (
    select
      (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = front.task_id) as identifier,
      front.task_id, count(*) as jobs, min(front.run_at) as oldest
    from front
    group by front.task_id
  ) as due
  where due.identifier not in (select unnest(alive.tasks) from alive)
    and due.task_id not in (
      select jobs.task_id
      from :"schema"._private_jobs as jobs
      where jobs.locked_by is not null
        and jobs.locked_by !~ '^backfill_[0-9a-f]{18}$'
        and jobs.locked_at > now() - interval '4 hours'
    )
  order by due.jobs desc, due.identifier
  limit $7::integer
)
select
  unknown.identifier, unknown.jobs,
  case when isfinite(unknown.oldest) then (extract(epoch from unknown.oldest) * 1000000)::bigint end as oldest,
  not exists (select from front group by front.priority having count(*) >= $5::integer) as whole,
  coalesce(asked.first, false) as answered,
  (extract(epoch from now()) * 1000000)::bigint as now_micros,
  (select json_agg(priority) from levels) as levels,
  (
    select sum(hashtextextended(task, 0))
    from (select distinct unnest(alive.tasks) as task from alive) as known_tasks
  ) as known
from asked
left join unknown on true
order by unknown.jobs desc, unknown.identifier
