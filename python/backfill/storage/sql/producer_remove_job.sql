-- does: Removes the waiting job of an id or of a key for a producer; gives back the row, if there was one.
-- locks: the _private_jobs row (delete)
-- index: none: its work is done in a function
-- params: $1 job_id bigint, $2 job_key text
select *
from :"schema".backfill_remove_job($1::bigint, $2::text)
