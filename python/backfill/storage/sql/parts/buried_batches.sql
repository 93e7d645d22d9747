-- The batches that were given back after they had been replaced: the job that took the key of one does not have its items,
-- so they are among the dead letters. So are removed ones that are not marked, since the row does not tell them apart.
buried as (
  select
    gone.id,
    :"schema".backfill_bury(
      gone.id,
      (select identifier from :"schema"._private_tasks where id = gone.task_id),
      (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
      gone.payload, gone.priority, gone.key, gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, gone.last_error, 'replaced or removed while it ran', gone.records
    ) as entry
  from gone
  where gone.batch
    and not gone.cancelled
),
