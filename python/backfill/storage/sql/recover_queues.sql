-- does: Unlocks serial queues that a dead worker has locked and whose job is not there any more; says how many.
-- locks: _private_job_queues rows (update)
-- index: none: it reads all queues, once a death
-- params: $1 worker text
with freed as (
  update :"schema"._private_job_queues
  set locked_by = null, locked_at = null
  where locked_by = $1::text
  returning 1
)
select count(*)
from freed
