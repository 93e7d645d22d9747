-- does: Has the session's transactions see, in each statement, what was committed before it, whatever the default of its role
--   or database is.
-- locks: none
-- index: none: it reads no table
-- params: none
select set_config('default_transaction_isolation', 'read committed', false)
