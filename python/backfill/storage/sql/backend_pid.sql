-- does: Tells which process of the server answers (behind a pooler it is another than the one that the connection was told of),
--   which isolation level its transactions have that name none, and whether its session reads NULL in an array's text as null.
--   Where the process is the one that is named, it is told not to compile statements: that takes a processor for a fourth of
--   a second where the table is large, and our statements are over long before that.
-- locks: none
-- index: none: it reads no table
-- params: $1 own integer (the process whose session is ours; null where none is)
select
  pg_backend_pid() as pid,
  current_setting('default_transaction_isolation') as isolation,
  current_setting('array_nulls') as array_nulls,
  case when pg_backend_pid() = $1::integer then set_config('jit', 'off', false) end as jit
