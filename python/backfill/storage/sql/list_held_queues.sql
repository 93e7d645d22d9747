-- does: Lists the serial queues that are held for a job's retry, by their names: each with the job's id, since when (Unix
--   microseconds), when the job is due next (null where that is over, or not finite), and whether the queue is paused.
-- locks: none
-- index: none: its work is done in functions
-- params: none
select
  held.queue_name, held.job_id, (extract(epoch from held.since) * 1000000)::bigint as since,
  case when isfinite(held.run_at) then (extract(epoch from held.run_at) * 1000000)::numeric(30) end as run_at,
  :"schema".backfill_is_paused(held.queue_name) as paused
from :"schema".backfill_see_held_queues() as held
where held.needed
order by held.queue_name collate "C"
