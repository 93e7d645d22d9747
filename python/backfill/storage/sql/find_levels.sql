-- does: Finds the priorities that waiting jobs have, at most 100 of them, and in how many seconds the next of each that
--   waits for its time is due (null where none does); gives the database's time beside each, in a row without a priority
--   where no job waits. It begins where claims ended: each span of one priority is read from its floor on, so that the dead
--   rows before it cost nothing; a span of many goes from priority to priority, so that its cost does not grow with the backlog.
-- locks: none
-- index: jobs_main_index
-- params: $1 lows smallint[], $2 highs smallint[], $3 floors timestamptz[]
with recursive spans as materialized (
  select span.low, span.high, span.floor
  from unnest($1::smallint[], $2::smallint[], $3::timestamptz[]) as span (low, high, floor)
),
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
select levels.priority, extract(epoch from next.run_at - clock_timestamp())::double precision, now()
from (select) as always
left join levels on true
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
