-- does: Deletes a worker's row: it ended in good order.
-- locks: its backfill_workers row (delete)
-- index: backfill_workers_pkey
-- params: $1 id text
delete from :"schema".backfill_workers
where id = $1::text
returning :"schema".backfill_tell_engine(id, false)
