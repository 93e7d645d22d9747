-- The queues that have waiting jobs and are not paused, found by a loose scan through the jobs' index. Where over 1,000 queues
-- have jobs and few of all queues are open (free, or held for a job's retry), these and the first 1,001 locked ones instead.
waiting as (
  (
    select jobs.job_queue_id
    from :"schema"._private_jobs as jobs
    where current_setting('backfill.hidden') = 'true'
      and jobs.is_available = true
      and jobs.job_queue_id is not null
    order by jobs.job_queue_id
    limit 1
  )
  union all
  select (
    select jobs.job_queue_id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.job_queue_id > waiting.job_queue_id
    order by jobs.job_queue_id
    limit 1
  )
  from waiting
  where waiting.job_queue_id is not null
),
looked_at as materialized (
  select
    queues.id,
    queues.locked_at is null or starts_with(queues.locked_by, 'backfill:retry:') as open,
    queues.locked_at is not null and not coalesce(starts_with(queues.locked_by, 'backfill:pause'), false) as busy
  from :"schema"._private_job_queues as queues
  where (select count(*) from (select from waiting limit 1001) as first) > 1000
  order by queues.id
  limit 100001
),
few as materialized (
  select
    coalesce(array_agg(id) filter (where open), '{}')
      || (coalesce(array_agg(id) filter (where busy and not coalesce(open, false)), '{}'))[1:1001] as ids
  from looked_at
  having count(*) between 1 and 100000 and count(*) filter (where open) <= 5000
),
either as materialized (
  select queues.id, queues.queue_name, queues.locked_at, queues.locked_by
  from (
    select waiting.job_queue_id as id
    from waiting
    where not exists (select from few)
    union all
    select unnest(ids) from few
  ) as found
  join :"schema"._private_job_queues as queues on queues.id = any (array[found.id])
  where not coalesce(starts_with(queues.locked_by, 'backfill:pause'), false)
)
