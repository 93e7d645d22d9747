-- does: Sets how long the transaction of a window may take: the server ends its session where its program leaves it idle for so
--   long, as one that was stopped does, and breaks off a statement that takes long.
-- locks: none
-- index: none: it reads no table
-- params: $1 idle text, $2 statement text
select
  set_config('idle_in_transaction_session_timeout', $1::text, true),
  set_config('statement_timeout', $2::text, true)
