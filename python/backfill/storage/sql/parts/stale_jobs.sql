-- The jobs that have been locked for $1 seconds by others than our workers and the engine's live ones, and those that are
-- locked without an owner's name. Owned ones are looked for between the ids of our workers: each of those leaves an entry in
-- the index for every job that it ran, until they are vacuumed. The offset keeps a gap's look whole: in a join the planner
-- could as well begin with all jobs.
edges as materialized (
  select workers.id
  from :"schema".backfill_workers as workers
  where workers.id > ''
),
gaps as materialized (
  select coalesce(lag(edges.id) over (order by edges.id), '') as low, edges.id as high
  from edges
),
foreign_jobs as materialized (
  select inside.id
  from gaps
  cross join lateral (
    select jobs.id, jobs.locked_by, jobs.locked_at
    from :"schema"._private_jobs as jobs
    where jobs.locked_by > gaps.low
      and jobs.locked_by < gaps.high
      and not starts_with(jobs.locked_by, 'backfill_')
      and jobs.locked_at < now() - $1::double precision * interval '1 second'
    offset 0
  ) as inside
  where inside.locked_by <> all (array(select unnest(:"schema".backfill_engine_alive())))
  union all
  select jobs.id
  from :"schema"._private_jobs as jobs
  where jobs.locked_by > coalesce((select max(edges.id) from edges), '')
    and not starts_with(jobs.locked_by, 'backfill_')
    and jobs.locked_at < now() - $1::double precision * interval '1 second'
    and jobs.locked_by <> all (array(select unnest(:"schema".backfill_engine_alive())))
),
owned as materialized (
  select jobs.*
  from :"schema"._private_jobs as jobs
  where jobs.id = any (array(select id from foreign_jobs))
    and coalesce(
      not starts_with(jobs.locked_by, 'backfill_')
      and jobs.locked_at < now() - $1::double precision * interval '1 second',
      false
    )
  limit $2::integer
  for update skip locked
),
ownerless as materialized (
  select jobs.*
  from :"schema"._private_jobs as jobs
  where jobs.is_available = false
    and jobs.locked_by is null
    and jobs.locked_at < now() - $1::double precision * interval '1 second'
  limit $2::integer
  for update skip locked
),
stale as (
  select * from owned union all select * from ownerless
)
