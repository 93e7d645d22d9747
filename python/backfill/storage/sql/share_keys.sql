-- does: Keeps others from writing jobs with keys in several statements while this transaction writes them in its only one;
--   many may share it, since their statements go by one order of keys.
-- locks: an advisory lock of the transaction, shared, by the schema's name
-- index: none: it reads no table
-- params: $1 schema text
select pg_advisory_xact_lock_shared(hashtextextended('backfill.keys:' || $1::text, 0))
