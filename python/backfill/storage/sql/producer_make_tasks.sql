-- does: Makes the tasks that are missing, for a producer, outside a transaction, as make_tasks does: it waits only briefly for
--   others.
-- locks: none but the new rows
-- index: none: its work is done in a function
-- params: $1 identifiers text[]
select :"schema".backfill_make_names($1::text[], '{}', true)
