-- does: Gives the ids of tasks by their identifiers; and this worker's heartbeat, with those of others that have not beaten for
--   a quarter of their dead time, were given up, or run where this one does, with their places. Ids of tasks and heartbeats
--   (microseconds) in the first column, given_up null for a task; then a worker's dead time in seconds, null where it is of an
--   older protocol and says nothing of it.
-- locks: none
-- index: tasks_identifier_key
-- params: $1 identifiers text[], $2 worker text, $3 dead_after double precision (seconds, for those that say nothing of theirs),
--   $4 surroundings jsonb (host, boot and namespaces of this worker's process; null where it cannot tell)
select
  id::bigint as number, identifier as name, null::boolean as given_up, null::double precision as dead_after, null::text as place
from :"schema"._private_tasks
where identifier = any ($1::text[])
union all
select
  (extract(epoch from heartbeat_at) * 1000000)::bigint, id, given_up_at is not null, extract(epoch from said)::float8,
  case when is_near and id <> $2::text then place::text end
from :"schema".backfill_workers
cross join lateral (
  select
    case when protocol >= 3 or dead_after <> interval '20 seconds' then dead_after end as said,
    coalesce(place @> $4::jsonb, false) as is_near
) as own
where id = $2::text
  or given_up_at is not null
  or is_near
  or heartbeat_at < now() - coalesce(said, $3::double precision * interval '1 second') / 4
  or heartbeat_at > now() -- the server's clock went back: who died before that would seem alive until it has caught up
