-- does: Gives the limits that hold for tasks now.
-- locks: none
-- index: none: the table has a row for each limited task
-- params: none
select
  task, most, by_path, rate_count, rate_micros, burst, closed_until, probing, source
from :"schema".backfill_limits
order by task
