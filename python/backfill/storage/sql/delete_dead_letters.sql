-- does: Deletes dead letters; gives back their tasks.
-- locks: backfill_dlq rows (delete)
-- index: backfill_dlq_pkey
-- params: $1 ids bigint[]
delete from :"schema".backfill_dlq
where id = any($1::bigint[])
returning task_identifier
