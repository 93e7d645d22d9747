-- Those of the chosen jobs that may have been replaced or removed while they were held: they become dead letters that say so.
gone as (
  delete from :"schema"._private_jobs as jobs
  where jobs.id = any (array(select id from chosen where doubtful))
  returning jobs.*
),
buried as (
  select
    :"schema".backfill_bury(
      gone.id,
      (select identifier from :"schema"._private_tasks where id = gone.task_id),
      (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
      gone.payload, gone.priority, gone.key, gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, gone.last_error,
      'left locked by ' || coalesce(gone.locked_by, 'nobody known')
        || '; the job may have been replaced or removed while it was held',
      :"schema".backfill_attempt_records(gone.id, null)
    ) as entry
  from gone
)
