-- does: Gives the ids of those of some tasks that have jobs which are due, free or not: each span of one priority is read from
--   its floor on, so that the jobs and the dead rows before it cost nothing.
-- locks: none
-- index: jobs_main_index
-- params: $1 task_ids integer[], $2 lows smallint[], $3 highs smallint[], $4 floors timestamptz[]
-- The tasks are compared after the duplicates are gone: there are many jobs of few tasks.
select coalesce(array_agg(found.task_id), '{}')::text as tasks
from (
  select distinct front.task_id
  from unnest($2::smallint[], $3::smallint[], $4::timestamptz[]) as span (low, high, floor)
  cross join lateral (
    select jobs.task_id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and span.low = span.high
      and jobs.priority = span.low
      and jobs.run_at >= span.floor
      and jobs.run_at <= now()
    union all
    select jobs.task_id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and span.low < span.high
      and jobs.priority between span.low and span.high
      and jobs.run_at <= now()
  ) as front
) as found
where found.task_id = any ($1::integer[])
