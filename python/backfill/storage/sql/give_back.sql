-- does: Gives claimed jobs back as they were, or put off by $8 seconds: unlocks job and queue and lowers the attempts again.
--   The queue is held for the job instead where the job's flags ask for it, and it has begun to run before.
--   A job that was replaced, removed or cancelled while it was held is deleted, as is seen once its row is held; a batch that was
--   replaced is a dead letter. Attempts whose `how` is given are noted.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), backfill_attempts rows (insert, delete),
--   new backfill_ends rows, backfill_dlq rows (insert, update)
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[], $8 delays double precision[], $9 started boolean[] (whether its handler began),
--   $10 started_ats timestamptz[], $11 hows text[],
--   $12 keeps double precision[] (seconds for which the end of a job is kept that is deleted),
--   $13 batches boolean[] (whether the job is a batch)
-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with ended as (
  select *
  from unnest(
    $2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[],
    $6::smallint[], $7::boolean[], $8::double precision[], $9::boolean[], $10::timestamptz[], $11::text[],
    $12::double precision[], $13::boolean[]
  ) as ended (id, locked_at, queue_id, queue_locked_at, attempts, keyed, delay, started, started_at, how, keep, batch)
),
held as materialized (
  select
    jobs.id, jobs.locked_at, ended.delay, ended.keep, ended.batch,
    (jobs.attempts <> ended.attempts or (ended.keyed and jobs.key is null)) and not coalesce(jobs.flags ? 'backfill.cancel', false)
      as superseded,
    coalesce(jobs.flags ? 'backfill.cancel', false) as last,
    ended.attempts as attempt, ended.started_at, ended.how, null::text as error_type, null::text as message,
    null::text as traceback, true as many,
    case
      when jobs.flags ? 'backfill.block_on_retry' and jobs.job_queue_id = ended.queue_id
        then case when ended.started or :"schema".backfill_was_held(ended.queue_id, jobs.id) then ended.queue_id end
    end as holds
  from ended
  join :"schema"._private_jobs as jobs on jobs.id = any (array[ended.id])
  where coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
  for update of jobs
),
holding as materialized (
  select held.id, held.holds as queue_id
  from held
  where held.holds is not null
    and not held.superseded
    and not held.last
),
-- part: freed_or_held_queues
,
gone as (
  delete from :"schema"._private_jobs as jobs
  using held
  where jobs.id = any (array[held.id])
    and (held.superseded or held.last)
  returning
    jobs.*, held.last as cancelled, held.keep, held.batch and not coalesce(jobs.flags ? 'backfill.removed', false) as batch,
    :"schema".backfill_attempt_records(
      jobs.id, :"schema".backfill_attempt_record(held.attempt, held.how, $1::text, held.started_at, null, null, null)
    ) as records
),
-- part: recorded_attempts
,
-- part: buried_batches
-- part: superseded_ends
-- part: telling
, returned as (
  update :"schema"._private_jobs as jobs
  set
    attempts = greatest(jobs.attempts - 1, 0),
    run_at = coalesce(now() + held.delay * interval '1 second', jobs.run_at),
    locked_by = null,
    locked_at = null
  from held
  where jobs.id = any (array[held.id])
    and not held.superseded
    and not held.last
)
select id, locked_at, (select count(*) from told) as told, (select count(entry) from buried) as buried
from held
