-- does: Locks those of some serial queues that are paused and that no worker has locked; gives the names of those that are not
--   paused.
-- locks: backfill_control rows for key share, skip locked; _private_job_queues rows (update), skip locked
-- index: none: its work is done in a function
-- params: $1 queue_ids integer[]
select resumed.queue_name
from :"schema".backfill_lock_paused_queues($1::integer[]) as resumed (queue_name)
