-- does: Unlocks serial queues of which no job is locked and that have been locked for so many seconds by others than our
--   workers and the engine's live ones, or for $2 seconds by a worker of ours that is not there any more; says how many.
-- locks: _private_job_queues rows (update), skip locked: they are looked for again
-- index: none: it reads all queues, now and then; those that are locked have no index, so that a claim need not write to it
-- params: $1 age double precision (seconds), $2 gone_for double precision (seconds)
with
-- part: busy_queues
, stale as materialized (
  select queues.id
  from :"schema"._private_job_queues as queues
  where queues.locked_at is not null
    and queues.id not in (select busy.job_queue_id from busy)
    and (
      case
        when starts_with(queues.locked_by, 'backfill_') then
          queues.locked_at < now() - $2::double precision * interval '1 second'
          and not exists (select from :"schema".backfill_workers as workers where workers.id = queues.locked_by)
        else
          queues.locked_at < now() - $1::double precision * interval '1 second'
          and coalesce(queues.locked_by, '') <> all (array(select unnest(:"schema".backfill_engine_alive())))
      end
    )
  for no key update skip locked
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  where queues.id = any (array(select id from stale))
  returning 1
)
select count(*) as queues
from freed
