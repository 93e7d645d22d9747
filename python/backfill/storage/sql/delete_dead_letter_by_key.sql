-- does: Deletes the dead letter of a key; gives back its task.
-- locks: its backfill_dlq row (delete)
-- index: backfill_dlq_key
-- params: $1 key text
delete from :"schema".backfill_dlq
where job_key = $1::text
returning task_identifier
