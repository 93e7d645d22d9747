-- does: Undoes what was done since the newest `savepoint`; the savepoint stays.
-- locks: none
-- index: none: it reads no table
-- params: none
rollback to savepoint backfill
