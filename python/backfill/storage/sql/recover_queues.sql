-- does: Unlocks serial queues that a dead worker has locked and of which no job is locked any more; says how many.
-- locks: _private_job_queues rows (update)
-- index: none: it reads all queues, once a death
-- params: $1 worker text
with
-- part: busy_queues
, freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  where queues.locked_by = $1::text
    and queues.id not in (select busy.job_queue_id from busy)
  returning 1
)
select count(*) as queues
from freed
