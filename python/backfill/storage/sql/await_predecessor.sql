-- does: Counts the transactions of a worker's lost connections that the server is still at. While there is one, a claim may
--   yet be committed after its worker has stopped looking for it. Sessions of other roles do not count, whatever they say.
-- locks: none
-- index: none: a function of the server
-- params: $1 worker text
select count(*)
from pg_stat_activity
where application_name = 'backfill transaction of ' || $1::text
  and usename = session_user
  and pid <> pg_backend_pid()
  and state <> 'idle'
