-- does: Closes the breaker of a task whose trial has not failed, and opens it again for longer where it has; gives the control that
--   is gone, or the one that stands now, as find_controls does. No row if the control of that version does not stand any more.
-- locks: the turn at control until the transaction ends; backfill_control rows (update, delete)
-- index: none: its work is done in a function
-- params: $1 task text, $2 version bigint, $3 failed boolean
select
  row_said.version, row_said.kind, row_said.subject, row_said.said, row_said.said_by, row_said.reason,
  (extract(epoch from row_said.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_end_trial($1::text, $2::bigint, $3::boolean) as row_said
