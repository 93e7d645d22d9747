-- does: Unlocks jobs, and their queues with them, that have been locked for so many seconds by others than our workers and
--   the engine's live ones, so many at most; the attempt counts. A queue that was held for the job before is held again. One
--   in its last attempt that may have been replaced or removed while it was held is a dead letter at once, which says so,
--   unless $3 is false: then it is only unlocked. Says how many jobs, how many queues, and how many such dead letters. A job
--   is passed over while somebody is at its queue's row.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), both skip locked: they are looked for again;
--   backfill_dlq rows (insert, update)
-- index: backfill_jobs_locked, backfill_jobs_stuck, jobs_pkey1, job_queues_pkey1, tasks_pkey
-- params: $1 age double precision (seconds), $2 wanted integer, $3 bury boolean
with
-- part: busy_queues
,
-- part: stale_jobs
, lanes as materialized (
  select queues.id, queues.locked_by
  from :"schema"._private_job_queues as queues
  where queues.id = any (array(select job_queue_id from stale))
  for no key update skip locked
),
chosen as materialized (
  select
    jobs.id, jobs.job_queue_id, jobs.locked_by, jobs.updated_at > jobs.locked_at and $3::boolean and
    -- part: written_since
    as doubtful,
    jobs.flags ? 'backfill.block_on_retry' and jobs.attempts < jobs.max_attempts
      and :"schema".backfill_was_held(jobs.job_queue_id, jobs.id) as blocks
  from stale as jobs
  where jobs.job_queue_id is null
    or jobs.job_queue_id in (select id from lanes)
    or (select queues.id from :"schema"._private_job_queues as queues where queues.id = jobs.job_queue_id) is null
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  from lanes join chosen on chosen.job_queue_id = lanes.id
  where queues.id = any (array[lanes.id])
    and queues.locked_at is not null
    and lanes.locked_by is not distinct from chosen.locked_by
    and lanes.id not in (select busy.job_queue_id from busy where busy.id not in (select id from chosen))
    and chosen.blocks is not true
  returning queues.id
),
still_held as (
  update :"schema"._private_job_queues as queues
  set locked_by = :"schema".backfill_hold_queue(lanes.id, chosen.id), locked_at = now()
  from lanes join chosen on chosen.job_queue_id = lanes.id
  where queues.id = any (array[lanes.id])
    and queues.locked_at is not null
    and lanes.locked_by is not distinct from chosen.locked_by
    and lanes.id not in (select busy.job_queue_id from busy where busy.id not in (select id from chosen))
    and chosen.blocks
),
-- part: doubtful_jobs
,
unlocked as (
  update :"schema"._private_jobs as jobs
  set locked_by = null, locked_at = null, updated_at = now()
  where jobs.id = any (array(select id from chosen where not doubtful))
)
select
  (select count(*) from chosen) as jobs,
  (select count(*) from freed) as queues,
  (select count(entry) from buried) as doubtful
