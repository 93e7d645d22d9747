-- The jobs that have been locked for $1 seconds by others than our workers and the engine's live ones, and those that are
-- locked without an owner's name.
owned as materialized (
  select jobs.*
  from :"schema"._private_jobs as jobs
  where jobs.locked_by is not null
    and jobs.locked_at < now() - $1::double precision * interval '1 second'
    and not starts_with(jobs.locked_by, 'backfill_')
    and jobs.locked_by <> all (array(select unnest(:"schema".backfill_engine_alive())))
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
