-- does: Tries to be the one that migrates a schema; never waits, since a waiter's snapshot would hold up an index that is
--   made concurrently.
-- locks: an advisory lock of the session, by the schema's name
-- index: none: it reads no table
-- params: $1 schema text
select pg_try_advisory_lock(hashtextextended('backfill.migrate:' || $1::text, 0)) as taken
