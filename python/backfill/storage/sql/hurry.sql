-- does: Lets the rest of a transaction hardly wait for rows that others hold: they are tried again later.
-- locks: none
-- index: none: it reads no table
-- params: none
select set_config('lock_timeout', '10ms', true)
