-- does: Finds the priorities that waiting jobs have, at most 100 of them, and in how many seconds the next of each that
--   waits for its time is due (null where none does); goes from priority to priority, so that its cost does not grow with
--   the backlog.
-- locks: none
-- index: jobs_main_index
-- params: none
with recursive levels as (
  (
    select jobs.priority, 1 as seen
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
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
)
select levels.priority, extract(epoch from next.run_at - clock_timestamp())::double precision
from levels
left join lateral (
  select jobs.run_at
  from :"schema"._private_jobs as jobs
  where jobs.is_available = true
    and jobs.priority = levels.priority
    and jobs.run_at > now()
    and jobs.run_at < 'infinity'
  order by jobs.run_at
  limit 1
) as next on true
where levels.priority is not null
