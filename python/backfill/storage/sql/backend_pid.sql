-- does: Tells which process of the server answers (behind a pooler it is another than the one that the connection was told of),
--   which isolation level its transactions have that name none, and whether its session reads NULL in an array's text as null.
-- locks: none
-- index: none: it reads no table
-- params: none
select
  pg_backend_pid() as pid,
  current_setting('default_transaction_isolation') as isolation,
  current_setting('array_nulls') as array_nulls
