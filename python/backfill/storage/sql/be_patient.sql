-- does: Lets the rest of a transaction wait for what others hold as long as it did before.
-- locks: none
-- index: none: it reads no table
-- params: $1 lock_timeout text
select set_config('lock_timeout', $1::text, true)
