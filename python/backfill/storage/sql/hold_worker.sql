-- does: Says, until the transaction ends, that it is one of a worker's, by the name that its session shows to others: behind
--   a pooler a session's own name is that of whoever used it last.
-- locks: none
-- index: none: it reads no table
-- params: $1 worker text
select set_config('application_name', 'backfill transaction of ' || $1::text, true)
