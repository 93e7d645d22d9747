-- does: Lets the rest of a transaction wait only briefly for what others hold; gives back for how long it waited before.
-- locks: none
-- index: none: it reads no table
-- params: none
select current_setting('lock_timeout') as before, set_config('lock_timeout', '200ms', true)
