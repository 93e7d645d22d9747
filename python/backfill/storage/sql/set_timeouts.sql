-- does: Sets the session's timeouts.
-- locks: none
-- index: none: it reads no table
-- params: $1 lock_timeout text, $2 statement_timeout text
select
  set_config('lock_timeout', $1::text, false),
  set_config('statement_timeout', $2::text, false)
