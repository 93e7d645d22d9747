-- does: Makes this transaction the only one that writes jobs with keys, or makes names, in several statements, so that two
--   never wait for each other in a ring.
-- locks: an advisory lock of the transaction, by the schema's name
-- index: none: it reads no table
-- params: $1 schema text
select pg_advisory_xact_lock(hashtextextended('backfill.keys:' || $1::text, 0))
