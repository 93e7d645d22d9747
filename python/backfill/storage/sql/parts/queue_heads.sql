-- The first job of each queue that was just locked; of a queue that is held for a job's retry, that job alone.
heads as materialized (
  select head.id, queues.id as queue_id
  from :"schema"._private_job_queues as queues
  cross join lateral (
    (
      select jobs.id
      from :"schema"._private_jobs as jobs
      where queues.locked_at is null
        and jobs.is_available = true
        and jobs.job_queue_id = queues.id
        and jobs.run_at <= now()
        and (jobs.flags is null or not jobs.flags ?| $3::text[])
        -- lane: serial
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    )
    union all
    select jobs.id
    from :"schema"._private_jobs as jobs
    where queues.locked_at is not null
      and jobs.id = any (array[
        -- part: holder
      ])
      and coalesce(jobs.is_available and jobs.job_queue_id = queues.id and jobs.run_at <= now(), false)
      and (jobs.flags is null or not jobs.flags ?| $3::text[])
      -- lane: serial
  ) as head
  where queues.id = any (current_setting('backfill.queues')::integer[])
)
