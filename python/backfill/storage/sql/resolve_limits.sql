-- does: Works out anew which limits hold; says whether they changed, and then workers are told.
-- locks: backfill_limits rows that change; those who work limits out take turns
-- index: none: its work is done inside a function
-- params: none
select :"schema".backfill_resolve_limits() as changed
