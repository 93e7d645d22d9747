-- does: Begins a part of the caller's transaction that can be undone by itself.
-- locks: none
-- index: none: it reads no table
-- params: none
savepoint backfill
