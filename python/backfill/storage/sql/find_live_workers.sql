-- does: Says which of these workers are alive for all that is known: ours whose heartbeat is not older than their dead time, and
--   the engine's that have beaten of late; ten at most. Nothing is known about the workers of other programs.
-- locks: none
-- index: backfill_workers_pkey
-- params: $1 worker_ids text[]
select live.id
from (
  select workers.id
  from :"schema".backfill_workers as workers
  where workers.id = any ($1::text[])
    and workers.given_up_at is null
    and greatest(workers.heartbeat_at, pg_postmaster_start_time()) >= now() - workers.dead_after
  union all
  select engine.id
  from (select unnest(:"schema".backfill_engine_alive()) as id) as engine
  where engine.id = any ($1::text[])
) as live
order by live.id
limit 10
