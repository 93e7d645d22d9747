-- does: Gives the ends of some jobs for a producer, as find_ends does.
-- locks: none
-- index: none: its work is done in a function
-- params: $1 ids bigint[]
select *
from :"schema".backfill_see_ends($1::bigint[])
