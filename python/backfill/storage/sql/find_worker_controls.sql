-- does: Lists what is said to the fleet and stands, as find_controls does, but for the pauses of serial queues: there may be
--   thousands of those, and workers read them apart.
-- locks: none
-- index: none: the table has a row for each thing that is said
-- params: none
select
  control.version, control.kind, control.subject, control.said, control.said_by, control.reason,
  (extract(epoch from control.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_control as control
where control.kind is not null
  and not (control.kind = 'pause' and starts_with(control.subject, 'queue:'))
order by control.version
