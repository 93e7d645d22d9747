-- The serial queue of a job: who has it locked, the job of it that this holder runs, and the job that is its first now.
queue as materialized (
  select
    queues.queue_name, queues.locked_by, queues.locked_at,
    (
      select workers.host || ':' || workers.pid
      from :"schema".backfill_workers as workers
      where workers.id = any (array[queues.locked_by])
    ) as holder_place,
    (
      select running.id
      from :"schema"._private_jobs as running
      where running.locked_by = any (array[queues.locked_by])
        and running.job_queue_id = queues.id
      limit 1
    ) as running_job,
    (
      select waiting.id
      from :"schema"._private_jobs as waiting
      where waiting.is_available = true
        and waiting.job_queue_id = queues.id
        and waiting.run_at <= now()
      order by waiting.priority, waiting.run_at, waiting.id
      limit 1
    ) as first_job
  from job
  join :"schema"._private_job_queues as queues on queues.id = any (array[job.job_queue_id])
)
