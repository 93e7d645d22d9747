-- does: Opens the breaker of a task if it has had so many dead letters within a time, and if it is not open; gives the control
--   that says so, as find_controls does, and else no row.
-- locks: the turn at control until the transaction ends; backfill_control rows (insert)
-- index: none: its work is done in a function
-- params: $1 task text, $2 names text[], $3 dead_letters integer, $4 within double precision (seconds), $5 pause double
--   precision (seconds), $6 longest double precision (seconds)
select
  row_said.version, row_said.kind, row_said.subject, row_said.said, row_said.said_by, row_said.reason,
  (extract(epoch from row_said.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_trip_breaker(
  $1::text, $2::text[], $3::integer, $4::double precision, $5::double precision, $6::double precision
) as row_said
