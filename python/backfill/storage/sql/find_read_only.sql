-- does: Tells whether the server is a standby, and whether transactions of this session are read-only unless they say otherwise.
-- locks: none
-- index: none: it reads no table
-- params: none
select pg_is_in_recovery() as standby, current_setting('default_transaction_read_only')::boolean as read_only
