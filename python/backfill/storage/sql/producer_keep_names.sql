-- does: Keeps tasks and serial queues from being deleted before the transaction's end, for a producer; says whether all of
--   them are there.
-- locks: _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 queue_names text[]
select :"schema".backfill_keep_names($1::text[], $2::text[]) as kept
