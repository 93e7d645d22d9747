-- Unlocks the queues of a dead worker's jobs, or holds them for those of the jobs whose flags ask for it and which are to
-- run again.
holding as materialized (
  select cut_off.id, cut_off.job_queue_id
  from cut_off
  where cut_off.blocks
    and cut_off.job_queue_id is not null
    and not cut_off.superseded
    and not cut_off.last
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  where queues.id = any (array(select job_queue_id from cut_off))
    and coalesce(queues.locked_by = $1::text, false)
    and queues.id not in (select busy.job_queue_id from busy where busy.id not in (select id from cut_off))
    and queues.id <> all (array(select holding.job_queue_id from holding))
),
still_held as (
  update :"schema"._private_job_queues as queues
  set locked_by = :"schema".backfill_hold_queue(holding.job_queue_id, holding.id), locked_at = now()
  from holding
  where queues.id = any (array[holding.job_queue_id])
    and coalesce(queues.locked_by = $1::text, false)
    and queues.id not in (select busy.job_queue_id from busy where busy.id not in (select id from cut_off))
)
