-- does: Prepares a session for heartbeats: one that waits for a lock ends on the server too, when its thread has given it up;
--   and each sees what was committed before it, whatever the default of its role or database is.
-- locks: none
-- index: none: it reads no table
-- params: none
select
  set_config('lock_timeout', '5s', false),
  set_config('statement_timeout', '10s', false),
  set_config('default_transaction_isolation', 'read committed', false)
