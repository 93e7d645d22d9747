-- The place before which no job may be claimed but those of some queues, which are to be watched: the first job of the free
-- queues that were seen, where others had hidden all of it; and the queues that were locked before, and those that are locked
-- by workers or held and have jobs before that place. Paused queues are not among them. Null where these are over 1,000.
edge as materialized (
  select priority, run_at, job_id
  from (
    select priority, run_at, job_id from heads
    union all
    select 32767, 'infinity', 9223372036854775807
  ) as all_of_them
  order by priority, run_at, job_id
  limit 1
),
watched as materialized (
  select unnest(ids) as id from near
  union all
  select busy.id
  from (select either.id from either where either.locked_at is not null limit 1001) as busy
  cross join edge
  where exists (
    select
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.job_queue_id = busy.id
      and (jobs.priority, jobs.run_at, jobs.id) < (edge.priority, edge.run_at, edge.job_id)
  )
)
