-- does: Says one thing of one subject to the fleet, in the place of what was said of it before; gives its version, kind,
--   subject, values, author, reason, and when it was said (Unix microseconds).
-- locks: the turn at control until the transaction ends; backfill_control rows (insert, update)
-- index: none: its work is done in a function
-- params: $1 kind text, $2 subject text, $3 said jsonb, $4 author text (null for the session's role), $5 reason text
select
  row_said.version, row_said.kind, row_said.subject, row_said.said, row_said.said_by, row_said.reason,
  (extract(epoch from row_said.said_at) * 1000000)::bigint as said_at
from :"schema".backfill_say($1::text, $2::text, $3::jsonb, $4::text, $5::text) as row_said
