-- Of each queue among some waiting jobs its first job, where the queue is free or held for that job; and locks on the first of
-- these queues.
first as (
  select distinct on (jobs.job_queue_id) jobs.job_queue_id, jobs.priority, jobs.run_at, jobs.id
  from scan as jobs
  join :"schema"._private_job_queues as queues on queues.id = any (array[jobs.job_queue_id])
  where (
      queues.locked_at is null
      or starts_with(queues.locked_by, 'backfill:retry:') and queues.locked_by = 'backfill:retry:' || jobs.id
    )
    and (jobs.flags is null or not jobs.flags ?| $2::text[])
    -- lane: serial
  order by jobs.job_queue_id, jobs.priority, jobs.run_at, jobs.id
),
free as materialized (
  select queues.id
  from first
  join :"schema"._private_job_queues as queues on queues.id = any (array[first.job_queue_id])
  where (queues.locked_at is null or queues.locked_by = 'backfill:retry:' || first.id)
  order by first.priority, first.run_at, first.id
  limit $1::integer
  for no key update of queues skip locked
)
