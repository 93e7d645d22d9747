-- does: Undoes what is said, by its version; gives the row that stood, as find_controls does.
-- locks: the turn at control until the transaction ends; backfill_control rows (delete)
-- index: none: its work is done in a function
-- params: $1 version bigint
select
  row_said.version, row_said.kind, row_said.subject, row_said.said, row_said.said_by, row_said.reason,
  (extract(epoch from row_said.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_unsay($1::bigint) as row_said
