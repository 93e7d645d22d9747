-- does: Finds the ids of our workers that have no row any more and under which jobs have been locked for so many seconds, 100 at
--   most, with how many of them are serial. A worker's row is there before its first claim, and goes after all is given back.
-- locks: none
-- index: backfill_jobs_locked
-- params: $1 gone_for double precision (seconds)
-- Looks between the ids of the workers that have rows, since each of those leaves an entry in the index for every job that it
-- ran, until they are vacuumed. The offset keeps a gap's look whole: in a join the planner could as well begin with all jobs.
-- The ids are compared with the prefix itself too, since starts_with() is no condition of an index.
with edges as (
  select 'backfill_' as id
  union all
  select workers.id
  from :"schema".backfill_workers as workers
  where workers.id > 'backfill_'
    and starts_with(workers.id, 'backfill_')
),
gaps as materialized (
  select edges.id as low, lead(edges.id) over (order by edges.id) as high
  from edges
),
found as (
  select inside.locked_by, inside.job_queue_id
  from gaps
  cross join lateral (
    select jobs.locked_by, jobs.job_queue_id
    from :"schema"._private_jobs as jobs
    where jobs.locked_by > gaps.low
      and jobs.locked_by < gaps.high
      and starts_with(jobs.locked_by, 'backfill_')
      and jobs.locked_at < now() - $1::double precision * interval '1 second'
    offset 0
  ) as inside
  union all
  select jobs.locked_by, jobs.job_queue_id
  from :"schema"._private_jobs as jobs
  where jobs.locked_by > (select max(edges.id) from edges)
    and starts_with(jobs.locked_by, 'backfill_')
    and jobs.locked_at < now() - $1::double precision * interval '1 second'
)
select found.locked_by as worker, count(found.job_queue_id) as serial
from found
group by found.locked_by
order by found.locked_by
limit 100
