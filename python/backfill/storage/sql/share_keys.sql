-- does: Waits until no transaction writes jobs with keys in several statements, and keeps others from it: for one statement,
--   which many may share, since they go by one order of keys.
-- locks: an advisory lock of the transaction, shared, by the schema's name
-- index: none: it reads no table
-- params: $1 schema text
select pg_advisory_xact_lock_shared(hashtextextended('backfill.keys:' || $1::text, 0))
