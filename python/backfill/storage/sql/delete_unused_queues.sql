-- does: Deletes those of some serial queues that still no job uses, within the transaction that holds them: a job that was added
--   since they were looked at is seen now. Says how many.
-- locks: _private_job_queues rows (delete), which are held already
-- index: job_queues_pkey1, backfill_jobs_serial_head, backfill_jobs_stuck, backfill_jobs_locked
-- params: $1 ids integer[]
with gone as (
  delete from :"schema"._private_job_queues as queues
  where queues.id = any ($1::integer[])
    and
    -- part: unused_queue
  returning 1
)
select count(*) as deleted
from gone
