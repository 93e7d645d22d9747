-- does: Sums the dead letters up: how many, of how many tasks and queues, how often requeued and failed, the oldest and the
--   newest, and the ten tasks that have most.
-- locks: none
-- index: none: it reads all dead letters
-- params: none
with entries as (
  select task_identifier, queue_name, requeued_count, failure_count, failed_at
  from :"schema".backfill_dlq
),
top as (
  select task_identifier, count(*) as number
  from entries
  group by task_identifier
  order by count(*) desc, task_identifier
  limit 10
)
select
  count(*) as jobs,
  count(distinct task_identifier) as tasks,
  count(distinct nullif(queue_name, '')) as queues,
  coalesce(sum(requeued_count), 0) as requeued,
  coalesce(avg(failure_count), 0)::float8 as failures,
  (extract(epoch from min(failed_at) filter (where isfinite(failed_at))) * 1000000)::numeric(30) as oldest,
  (extract(epoch from max(failed_at) filter (where isfinite(failed_at))) * 1000000)::numeric(30) as newest,
  (
    select coalesce(json_agg(json_build_array(task_identifier, number) order by number desc, task_identifier), '[]')
    from top
  ) as top_tasks
from entries
