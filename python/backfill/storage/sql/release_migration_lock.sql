-- does: Lets others migrate the schema.
-- locks: gives up the advisory lock of try_migration_lock
-- index: none: it reads no table
-- params: $1 schema text
select pg_advisory_unlock(hashtextextended('backfill.migrate:' || $1::text, 0))
