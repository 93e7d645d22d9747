-- does: Unlocks jobs, and their queues with them, that have been locked for so many seconds by others than our workers and
--   the engine's live ones, so many at most. Says how many jobs, and how many queues. One replaced or removed while it was
--   held is deleted; the attempt counts. A job is passed over while somebody is at its queue's row.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), both skip locked: they are looked for again
-- index: backfill_jobs_locked, backfill_jobs_stuck, job_queues_pkey1
-- params: $1 age double precision (seconds), $2 wanted integer
with
-- part: busy_queues
, owned as materialized (
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
),
lanes as materialized (
  select queues.id, queues.locked_by
  from :"schema"._private_job_queues as queues
  where queues.id = any (array(select job_queue_id from stale))
  for no key update skip locked
),
chosen as materialized (
  select
    stale.id, stale.job_queue_id, stale.locked_by,
    stale.key is null and stale.attempts >= stale.max_attempts and stale.updated_at > stale.locked_at as superseded
  from stale
  where stale.job_queue_id is null
    or stale.job_queue_id in (select id from lanes)
    or not exists (select from :"schema"._private_job_queues as queues where queues.id = stale.job_queue_id)
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  from lanes
  join chosen on chosen.job_queue_id = lanes.id
  where queues.id = lanes.id
    and queues.locked_at is not null
    and lanes.locked_by is not distinct from chosen.locked_by
    and lanes.id not in (select busy.job_queue_id from busy where busy.id not in (select id from chosen))
  returning queues.id
),
gone as (
  delete from :"schema"._private_jobs as jobs
  using chosen
  where jobs.id = chosen.id
    and chosen.superseded
),
unlocked as (
  update :"schema"._private_jobs as jobs
  set locked_by = null, locked_at = null, updated_at = now()
  from chosen
  where jobs.id = chosen.id
    and not chosen.superseded
)
select (select count(*) from chosen), (select count(*) from freed)
