-- The queues of jobs that are locked.
busy as materialized (
  select jobs.id, jobs.job_queue_id
  from :"schema"._private_jobs as jobs
  where jobs.locked_by is not null
    and jobs.locked_at is not null
    and jobs.job_queue_id is not null
  union all
  select jobs.id, jobs.job_queue_id
  from :"schema"._private_jobs as jobs
  where jobs.is_available = false
    and jobs.locked_by is null
    and jobs.locked_at is not null
    and jobs.job_queue_id is not null
)
