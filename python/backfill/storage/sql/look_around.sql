-- does: Gives the ids of tasks by their identifiers; and this worker's heartbeat, with those of others that have not beaten for
--   so many seconds or were given up. Ids of tasks and heartbeats (microseconds) in the first column, given_up null for a task.
-- locks: none
-- index: tasks_identifier_key
-- params: $1 identifiers text[], $2 worker text, $3 silent double precision (seconds)
select id::bigint as number, identifier as name, null::boolean as given_up
from :"schema"._private_tasks
where identifier = any ($1::text[])
union all
select (extract(epoch from heartbeat_at) * 1000000)::bigint, id, given_up_at is not null
from :"schema".backfill_workers
where id = $2::text
  or given_up_at is not null
  or heartbeat_at < now() - $3::double precision * interval '1 second'
  or heartbeat_at > now() -- the server's clock went back: who died before that would seem alive until it has caught up
