-- The serial queue of a job: who has it locked, the job of it that this holder runs, and the job that is its first now. Jobs
-- of tasks that are paused or whose breaker is open are passed over, as workers pass them over; so many are looked at at most.
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
      select ahead.id
      from (
        select waiting.id, waiting.task_id, waiting.priority, waiting.run_at
        from :"schema"._private_jobs as waiting
        where waiting.is_available = true
          and waiting.job_queue_id = queues.id
          and waiting.run_at <= now()
        order by waiting.priority, waiting.run_at, waiting.id
        limit 1000
      ) as ahead
      where not exists (
        select
        from :"schema"._private_tasks as tasks
        join :"schema".backfill_control as control on control.subject = any (array['task:' || tasks.identifier])
        where tasks.id = any (array[ahead.task_id])
          and control.kind = any (array['pause', 'breaker'])
      )
      order by ahead.priority, ahead.run_at, ahead.id
      limit 1
    ) as first_job
  from job
  join :"schema"._private_job_queues as queues on queues.id = any (array[job.job_queue_id])
)
