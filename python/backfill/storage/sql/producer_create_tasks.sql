-- does: Makes the tasks that are missing, for a producer, as create_tasks does.
-- locks: none but the new rows
-- index: none: its work is done in a function
-- params: $1 identifiers text[]
select :"schema".backfill_make_names($1::text[], '{}', false)
