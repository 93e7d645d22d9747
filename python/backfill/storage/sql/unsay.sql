-- does: Undoes what is said of a kind and a subject; gives the row that stood, as find_controls does.
-- locks: the turn at control until the transaction ends; backfill_control rows (delete)
-- index: none: its work is done in a function
-- params: $1 kind text, $2 subject text
select
  row_said.version, row_said.kind, row_said.subject, row_said.said, row_said.said_by, row_said.reason,
  (extract(epoch from row_said.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_unsay($1::text, $2::text) as row_said
