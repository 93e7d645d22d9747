-- does: Tells which process of the server answers (behind a pooler it is another than the one that the connection was told of),
--   and which isolation level its transactions have that name none.
-- locks: none
-- index: none: it reads no table
-- params: none
select pg_backend_pid(), current_setting('default_transaction_isolation')
