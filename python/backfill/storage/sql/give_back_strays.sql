-- does: Gives back the jobs that are locked by this worker though it does not hold them (the answer to a claim was lost), as
--   give_back.sql does, and frees their queues, or holds them where they were held
--   before; one that was replaced, removed or cancelled since the claim is deleted, and a batch that was replaced is a dead
--   letter. Says which jobs they were, which of them are deleted, and how many are dead letters.
-- locks: _private_jobs rows (update, delete), skip locked: they are looked for again; _private_job_queues rows (update);
--   backfill_dlq rows (insert)
-- index: backfill_jobs_locked, jobs_pkey1, job_queues_pkey1, tasks_pkey
-- params: $1 worker text, $2 held bigint[], $3 batches text[] (the tasks whose jobs are batches), $4 only bigint[] (null for all)
with strays as materialized (
  select
    jobs.id, jobs.job_queue_id, jobs.locked_at, coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled,
    coalesce(jobs.flags ? 'backfill.cancel', false)
      or
    -- part: written_since
    as superseded,
    case
      when jobs.flags ? 'backfill.block_on_retry' and :"schema".backfill_was_held(jobs.job_queue_id, jobs.id)
        then jobs.job_queue_id
    end as holds
  from :"schema"._private_jobs as jobs
  where jobs.locked_at is not null
    and jobs.locked_by = $1::text
    and jobs.id <> all ($2::bigint[])
    and coalesce(jobs.id = any ($4::bigint[]), true)
  for update of jobs skip locked
),
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  from strays
  where queues.id = any (array[strays.job_queue_id])
    and coalesce(queues.locked_by = $1::text and queues.locked_at = strays.locked_at, false)
    and (strays.superseded or strays.holds is null)
),
still_held as (
  update :"schema"._private_job_queues as queues
  set locked_by = :"schema".backfill_hold_queue(strays.holds, strays.id), locked_at = now()
  from strays
  where queues.id = any (array[strays.holds])
    and coalesce(queues.locked_by = $1::text and queues.locked_at = strays.locked_at, false)
    and not strays.superseded
),
gone as (
  delete from :"schema"._private_jobs as jobs
  where jobs.id = any (array(select id from strays where superseded))
  returning
    jobs.*, coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled, null::double precision as keep,
    :"schema".backfill_attempt_records(jobs.id, null) as records,
    not coalesce(jobs.flags ? 'backfill.removed', false)
      and (select identifier from :"schema"._private_tasks where id = jobs.task_id) = any ($3::text[]) as batch
),
-- part: buried_batches
kept as (
  -- part: cancelled_ends
),
-- part: telling
,
returned as (
  update :"schema"._private_jobs as jobs
  set attempts = greatest(jobs.attempts - 1, 0), locked_by = null, locked_at = null
  where jobs.id = any (array(select id from strays where not superseded))
)
select id, superseded, (select count(*) from told) as told, (select count(entry) from buried) as buried
from strays
