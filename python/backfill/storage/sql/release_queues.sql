-- does: Unlocks serial queues of which no job is locked and that have been locked for so many seconds by others than our
--   workers and the engine's live ones, or for $2 seconds by a worker of ours that is not there any more; says how
--   many. A queue that is held for a job's retry stays so while the job needs it, however long; one that is
--   locked for a pause is left to free_resumed_queues.sql.
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
        when queues.locked_by = 'backfill:pause' or starts_with(queues.locked_by, 'backfill:pause:') then false
        when starts_with(queues.locked_by, 'backfill:retry:') then
          queues.locked_at < now() - $1::double precision * interval '1 second'
          and not exists (
            select
            from :"schema"._private_jobs as jobs
            where jobs.id = any (array[
                -- part: holder
              ])
              and coalesce(jobs.job_queue_id = queues.id and jobs.flags ? 'backfill.block_on_retry', false)
              and (jobs.locked_at is not null or jobs.attempts < jobs.max_attempts)
          )
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
