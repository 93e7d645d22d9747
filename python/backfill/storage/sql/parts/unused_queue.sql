  queues.locked_at is null
  and queues.locked_by is null
  and not exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.job_queue_id = queues.id
  )
  and not exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.is_available = false
      and jobs.locked_by is null
      and jobs.job_queue_id = queues.id
  )
  and not exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.locked_by is not null
      and jobs.job_queue_id = queues.id
  )
  and not exists (
    select
    from :"schema".backfill_control as control
    where control.kind = 'pause'
      and control.subject = 'queue:' || queues.queue_name
  )
