-- does: Has the server end this transaction where its program leaves it idle for so long, as one that is stopped does.
-- locks: none
-- index: none: it reads no table
-- params: $1 patience integer (milliseconds)
select set_config('idle_in_transaction_session_timeout', $1::integer::text, true)
