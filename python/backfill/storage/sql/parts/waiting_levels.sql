-- The priorities that waiting jobs have, at most 100, from `spans` on: each span of one priority is read from its floor on,
-- so that the dead rows before it cost nothing; one of many goes from priority to priority.
known as (
  select first.priority
  from spans
  cross join lateral (
    select jobs.priority
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority = spans.low
      and jobs.run_at >= spans.floor
    order by jobs.run_at
    limit 1
  ) as first
  where spans.low = spans.high
),
others (priority, high, seen) as (
  select first.priority, spans.high, 1
  from spans
  cross join lateral (
    select jobs.priority
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority between spans.low and spans.high
    order by jobs.priority
    limit 1
  ) as first
  where spans.low < spans.high
  union all
  select next.priority, others.high, others.seen + 1
  from others
  cross join lateral (
    select jobs.priority
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.priority > others.priority
      and jobs.priority <= others.high
    order by jobs.priority
    limit 1
  ) as next
  where others.seen < 100
),
levels as (
  select priority from known
  union all
  select priority from others
  order by priority
  limit 100
)
