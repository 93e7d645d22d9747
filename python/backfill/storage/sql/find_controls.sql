-- does: Lists what is said to the fleet and stands: of each its version, kind, subject, values, author, reason, and when it
--   was said (Unix microseconds), in the order in which they were said.
-- locks: none
-- index: none: the table has a row for each thing that is said
-- params: none
select
  control.version, control.kind, control.subject, control.said, control.said_by, control.reason,
  (extract(epoch from control.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_control as control
where control.kind is not null
order by control.version
