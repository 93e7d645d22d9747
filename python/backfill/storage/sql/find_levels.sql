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
-- part: waiting_levels
select levels.priority, extract(epoch from next.run_at - clock_timestamp())::double precision as due_in, now() as looked_at
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
