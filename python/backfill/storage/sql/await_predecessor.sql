-- does: Waits for the transactions of a worker's lost connections, so that no claim can be committed after its worker has
--   stopped looking for it.
-- locks: an advisory lock of the transaction, by the worker's id
-- index: none: it reads no table
-- params: $1 worker text
select pg_advisory_xact_lock(hashtextextended('backfill.worker:' || $1::text, 0))
