    -- The first serial jobs of the priorities between those that are known.
    select gap.*
    from (
      select job_queue_id, task_id, priority, run_at, id, flags
      from :"schema"._private_jobs
      where is_available = true
        and job_queue_id is not null
        and span.low < span.high
        and priority between span.low and span.high
        and run_at <= now()
      order by priority, run_at, id
      limit 2000
    ) as gap
