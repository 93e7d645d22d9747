-- The ends of the jobs that are gone because they were cancelled.
select :"schema".backfill_keep_cancelled(
  gone.id, gone.task_id, gone.job_queue_id, gone.attempts, gone.max_attempts, gone.priority, gone.key, gone.created_at,
  gone.run_at, gone.locked_at, gone.flags, $1::text, gone.keep, gone.records
) as job_id
from gone
where gone.cancelled
