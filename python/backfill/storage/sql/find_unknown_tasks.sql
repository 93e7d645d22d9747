-- does: Finds tasks that no live worker knows and whose jobs are due for so many seconds: how many, since when the oldest is (Unix
--   microseconds), and whether all of them were looked at. Looks at the longest due of each priority, so many at most, where
--   jobs that nobody takes come to stand: its cost does not grow with the backlog. Only the live worker with the smallest id
--   gets an answer, those of an older protocol left out, which may not know to ask. A task of which another program's worker
--   has locked a job of late is that worker's.
-- locks: none
-- index: jobs_main_index, tasks_pkey, backfill_jobs_locked
-- params: $1 worker text, $2 looked_at integer, $3 due_for double precision, $4 wanted integer
with recursive alive as materialized (
  select workers.id, workers.protocol, workers.tasks
  from :"schema".backfill_workers as workers
  where workers.heartbeat_at > now() - workers.dead_after
),
levels as (
  (
    select jobs.priority, 1 as seen
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and $1::text = (
        select min(alive.id)
        from alive
        where alive.protocol >= (select workers.protocol from :"schema".backfill_workers as workers where workers.id = $1::text)
      )
    order by jobs.priority
    limit 1
  )
  union all
  select (
    select jobs.priority
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority > levels.priority
    order by jobs.priority
    limit 1
  ), levels.seen + 1
  from levels
  where levels.priority is not null
    and levels.seen < 100
),
front as materialized (
  select levels.priority, longest.task_id, longest.run_at
  from levels
  cross join lateral (
    select jobs.task_id, jobs.run_at
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority = levels.priority
      and jobs.run_at <= now() - $3::double precision * interval '1 second'
    order by jobs.run_at
    limit $2::integer
  ) as longest
),
due as materialized (
  select
    front.task_id,
    (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = front.task_id) as identifier,
    count(*) as jobs,
    min(front.run_at) as oldest
  from front
  group by front.task_id
)
select
  due.identifier, due.jobs,
  case when isfinite(due.oldest) then (extract(epoch from due.oldest) * 1000000)::bigint end,
  not exists (select from front group by front.priority having count(*) >= $2::integer)
from due
where due.identifier not in (select unnest(alive.tasks) from alive)
  and due.task_id not in (
    select jobs.task_id
    from :"schema"._private_jobs as jobs
    where jobs.locked_by is not null
      and jobs.locked_by !~ '^backfill_[0-9a-f]{18}$'
      and jobs.locked_at > now() - interval '4 hours'
  )
order by due.jobs desc, due.identifier
limit $4::integer
