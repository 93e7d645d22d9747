-- does: Takes the lock that lets one worker at a time recover what a dead one held, for this transaction; says whether it
--   has it. The server ends the transaction where its worker leaves it idle for so long, as one that is stopped does.
-- locks: the row 'recovery' of backfill_locks (update), if nobody has it
-- index: none: its work is done in a function, on a table of four rows
-- params: $1 patience integer (milliseconds)
select :"schema".backfill_try_lock('recovery', $1::integer) as taken
