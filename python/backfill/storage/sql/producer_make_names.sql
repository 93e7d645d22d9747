-- does: Makes the tasks and serial queues that are missing, for a producer.
-- locks: none but the new rows
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 queue_names text[], $3 brief boolean
select :"schema".backfill_make_names($1::text[], $2::text[], $3::boolean)
