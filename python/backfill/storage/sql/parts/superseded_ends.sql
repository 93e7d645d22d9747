-- The ends of jobs that were given back and are gone: those that were replaced or removed, where they are kept, and those
-- that were cancelled.
kept_others as (
  insert into :"schema".backfill_ends (
    -- part: kept_columns
  )
  select
    gone.id, (select identifier from :"schema"._private_tasks where id = gone.task_id), 'superseded', gone.attempts,
    gone.max_attempts, gone.priority,
    (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
    gone.key, gone.created_at, gone.run_at, gone.locked_at, now() + gone.keep * interval '1 second', $1::text, null,
    gone.records
  from gone
  where gone.keep is not null
    and not gone.cancelled
  returning job_id
),
kept as (
  select job_id
  from kept_others
  union all
  -- part: cancelled_ends
),
