-- does: Says, until the transaction ends, that it is one of a worker's: behind a pooler no session can be told by its name.
-- locks: an advisory lock of the transaction, shared, by the worker's id
-- index: none: it reads no table
-- params: $1 worker text
select pg_advisory_xact_lock_shared(hashtextextended('backfill.worker:' || $1::text, 0))
