-- does: Takes shares of a task's limit for jobs that have no value, for the claim that follows in the same transaction. Says how
--   many were granted, in how many seconds asking again may give more, whether all slots are taken, whether somebody else was
--   being served, whether another limit holds than the worker knows; where there is a rate, in how many seconds the first may
--   start and how many lie between two starts; and the numbers of the slots.
-- locks: backfill_shares and backfill_limit_states rows for update, skip locked, until the transaction ends
-- index: none: its work is done inside a function
-- params: $1 task text, $2 by_path text, $3 wanted integer, $4 ahead integer
select granted, wait, is_full, is_busy, is_stale, first_start, step, slots
from :"schema".backfill_take_shares($1::text, $2::text, $3::integer, $4::integer)
