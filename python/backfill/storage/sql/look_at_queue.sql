-- does: Counts for the metrics: the due, scheduled and running jobs of each task, and the dead letters, all of them under an empty
--   task and those of the ten tasks that have most; and for how many seconds the oldest due job has been due. Looks at no more
--   than so many jobs of each priority, so many running ones, and ten times so many dead letters: its cost does not grow with the
--   backlog. Only the live worker with the smallest id gets rows.
-- locks: none
-- index: jobs_main_index, tasks_pkey, backfill_jobs_locked, backfill_dlq_task
-- params: $1 worker text, $2 looked_at integer
with recursive asked as materialized (
  select coalesce(min(id) = $1::text, false) as first
  from :"schema".backfill_workers
  where heartbeat_at > now() - dead_after
    and given_up_at is null
),
spans as materialized (
  select (-32768)::smallint as low, 32767::smallint as high, '-infinity'::timestamptz as floor
  where (select first from asked)
),
-- part: waiting_levels
, waiting as materialized (
  select 'due' as state, found.task_id, found.run_at
  from levels
  cross join lateral (
    select jobs.task_id, jobs.run_at
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority = levels.priority
      and jobs.run_at <= now()
    order by jobs.run_at
    limit $2::integer
  ) as found
  union all
  select 'scheduled', found.task_id, null
  from levels
  cross join lateral (
    select jobs.task_id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority = levels.priority
      and jobs.run_at > now()
    order by jobs.run_at
    limit $2::integer
  ) as found
  union all
  select 'running', found.task_id, null
  from (
    select jobs.task_id
    from :"schema"._private_jobs as jobs
    where jobs.locked_by is not null
      and (select first from asked)
    limit $2::integer
  ) as found
),
dead as materialized (
  select entries.task_identifier
  from :"schema".backfill_dlq as entries
  where (select first from asked)
  order by entries.task_identifier, entries.failed_at, entries.id
  limit 10 * $2::integer
),
dead_tasks as (
  select task_identifier, count(*) as number from dead group by task_identifier order by count(*) desc, task_identifier limit 10
)
select counted.state, counted.task, counted.number, counted.oldest, (select first from asked) as answered
from (
  select
    waiting.state, coalesce((select identifier from :"schema"._private_tasks as tasks where tasks.id = waiting.task_id), '') as task,
    count(*) as number,
    extract(epoch from now() - min(waiting.run_at) filter (where isfinite(waiting.run_at)))::float8 as oldest
  from waiting
  group by waiting.state, waiting.task_id
  union all
  select 'dead', task_identifier, number, null from dead_tasks
  union all
  select 'dead', '', (select count(*) from dead), null
) as counted
