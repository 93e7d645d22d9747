-- does: Ends the sessions of a worker's windows, so that the rows are free that they hold by their locks alone; says how many
--   it ended. It waits for each of them, a second at most, since the rows are free once the session has ended. An idle one is
--   left: it holds nothing. Other databases of the server are left alone: a copy of one has rows of workers that live.
-- locks: none
-- index: none: a function of the server
-- params: $1 application_names text[]
select count(*) filter (where pg_terminate_backend(pid, 1000)) as ended
from pg_stat_activity
where application_name = any ($1::text[])
  and datname = current_database()
  and usename = current_user
  and pid <> pg_backend_pid()
  and state <> 'idle'
