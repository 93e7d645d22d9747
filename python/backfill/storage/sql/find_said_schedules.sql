-- does: Lists what operators said of recurring items, of some or, where $1 is null, of all. Times are Unix microseconds.
-- locks: none
-- index: none: the table has a row for each item of which operators said something
-- params: $1 identifiers text[]
select
-- part: said_schedule
from :"schema".backfill_schedules as schedules
where $1::text[] is null
  or schedules.identifier = any ($1::text[])
order by schedules.identifier
