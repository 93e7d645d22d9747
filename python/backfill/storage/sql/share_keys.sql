-- does: Waits until no transaction writes jobs with keys in several statements, and keeps others from it: for one statement,
--   which many may share, since they go by one order of keys.
-- locks: the row 'keys' of backfill_locks (share)
-- index: none: its work is done in a function, on a table of four rows
-- params: none
select :"schema".backfill_lock_keys(false)
