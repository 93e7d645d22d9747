-- does: Deletes a worker's row: it ended in good order. While a job is locked by it the row stays: others shall see it dead.
-- locks: its backfill_workers row (delete)
-- index: backfill_workers_pkey, backfill_jobs_locked
-- params: $1 id text
delete from :"schema".backfill_workers
where id = $1::text
  and not exists (select from :"schema"._private_jobs as jobs where jobs.locked_by = $1::text)
returning :"schema".backfill_tell_engine(id, false)
