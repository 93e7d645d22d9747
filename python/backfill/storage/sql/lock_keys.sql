-- does: Makes this transaction the only one that writes jobs with keys, or makes names, in several statements, so that two
--   never wait for each other in a ring.
-- locks: the row 'keys' of backfill_locks (update)
-- index: none: its work is done in a function, on a table of four rows
-- params: none
select :"schema".backfill_lock_keys(true)
