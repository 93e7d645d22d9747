-- does: Finds our workers that were given up, or have been silent for their dead time of the server's own life, and hold a
--   lock that is old: their ids, last heartbeats (Unix microseconds), and how many queues each has locked.
-- locks: none
-- index: none: it reads all queues, when an operator asks, and the few workers
-- params: $1 job_age double precision (seconds), $2 queue_age double precision (seconds)
with queues as materialized (
  select locked_by, locked_at
  from :"schema"._private_job_queues
  where locked_at is not null
)
select
  workers.id,
  (extract(epoch from workers.heartbeat_at) * 1000000)::bigint as heartbeat,
  (select count(*) from queues where queues.locked_by = workers.id) as queues
from :"schema".backfill_workers as workers
where (
    workers.given_up_at is not null
    or greatest(workers.heartbeat_at, pg_postmaster_start_time()) < now() - workers.dead_after
  )
  and (
    exists (
      select
      from :"schema"._private_jobs as jobs
      where jobs.locked_by = workers.id
        and jobs.locked_at < now() - $1::double precision * interval '1 second'
    )
    or exists (
      select
      from queues
      where queues.locked_by = workers.id
        and queues.locked_at < now() - $2::double precision * interval '1 second'
    )
  )
order by workers.id
