-- does: Prepares a session for heartbeats: one that waits for a lock ends on the server too, when its thread has given it up.
-- locks: none
-- index: none: it reads no table
-- params: none
select
  set_config('lock_timeout', '5s', false),
  set_config('statement_timeout', '10s', false)
