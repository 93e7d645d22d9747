-- does: Ends what a lost connection of the same name may still be doing on the server, so that a claim cannot be committed
--   after its worker has stopped looking for it.
-- locks: none
-- index: none: a function of the server
-- params: $1 application_name text
select count(pg_terminate_backend(pid))
from pg_stat_activity
where application_name = $1::text
  and usename = current_user
  and pid <> pg_backend_pid()
  and state <> 'idle'
