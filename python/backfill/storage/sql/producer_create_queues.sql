-- does: Makes the serial queues that are missing, for a producer, as create_queues does.
-- locks: none but the new rows
-- index: none: its work is done in a function
-- params: $1 queue_names text[]
select :"schema".backfill_make_names('{}', $1::text[], false)
