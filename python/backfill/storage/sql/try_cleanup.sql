-- does: Takes the lock that lets one worker at a time release stale locks, for this transaction; says whether it has it.
-- locks: an advisory lock of the schema
-- index: none: it reads no table
-- params: $1 schema text
select pg_try_advisory_xact_lock(hashtextextended('backfill cleanup ' || $1::text, 0))
