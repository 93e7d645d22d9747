-- does: Reads one job as producers see it: without its payload and its error.
-- locks: none
-- index: none: its work is done in a function
-- params: $1 id bigint
select *
from :"schema".backfill_see_job($1::bigint)
