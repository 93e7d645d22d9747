-- does: Writes rows, given up already, for workers of ours that have none and yet have held jobs for so many seconds: they were
--   recovered, paused, and have claimed again before they heard of it. Says how many; who looks around recovers them.
-- locks: backfill_workers rows (insert)
-- index: backfill_workers_pkey, backfill_jobs_locked
-- params: $1 silent double precision (seconds)
with orphans as (
  select jobs.locked_by as id, min(jobs.locked_at) as since
  from :"schema"._private_jobs as jobs
  where jobs.locked_by like 'backfill\_%'
    and jobs.locked_at < now() - $1::double precision * interval '1 second'
    and not exists (select from :"schema".backfill_workers as workers where workers.id = jobs.locked_by)
  group by jobs.locked_by
),
added as (
  insert into :"schema".backfill_workers (id, host, pid, started_at, heartbeat_at, protocol, version, given_up_at)
  select id, 'unknown', 0, since, since, 0, '', now()
  from orphans
  on conflict (id) do nothing
  returning 1
)
select count(*)
from added
