-- does: Names workers of other programs that may live: those under whose ids something is locked, however long, and the
--   engine's that have beaten of late; ten at most.
-- locks: none
-- index: none: it reads all queues, when an operator asks
-- params: none
select distinct id
from (
  select coalesce(locked_by, 'a lock without an owner') as id
  from :"schema"._private_job_queues
  where locked_at is not null
  union all
  select locked_by
  from :"schema"._private_jobs
  where locked_by is not null
  union all
  select 'a lock without an owner'
  from :"schema"._private_jobs
  where is_available = false
    and locked_by is null
    and locked_at is not null
  union all
  select unnest(:"schema".backfill_engine_alive())
) as workers
where not starts_with(id, 'backfill_')
  and not starts_with(id, 'backfill:retry:') -- a queue that is held for a job's retry
  and id <> 'backfill:pause' -- a queue that is paused
  and not starts_with(id, 'backfill:pause:')
order by id
limit 10
