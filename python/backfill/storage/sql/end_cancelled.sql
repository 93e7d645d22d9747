-- does: Ends attempts whose jobs were cancelled: deletes the jobs and frees their queues, each only while it is still locked by
--   this attempt; writes the jobs' ends and tells whoever awaits one. Gives back the ids that it found, with the times of
--   their locks.
-- locks: _private_jobs rows (delete), _private_job_queues rows (update), backfill_attempts rows (delete), new backfill_ends
--   rows
-- index: jobs_pkey1, job_queues_pkey1, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[],
--   $5 queue_locked_ats timestamptz[], $6 attempts smallint[] (when the jobs were claimed: whoever replaced one by its key has
--   raised the number in its row), $7 keyed boolean[] (not used), $8 keeps double precision[] (seconds, null for ten minutes),
--   $9 started_ats timestamptz[], $10 hows text[] (of the attempts, null where the handler had not begun)
-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with ended as (
  select *
  from unnest(
    $2::bigint[], $3::timestamptz[], $6::smallint[], $7::boolean[],
    $8::double precision[], $9::timestamptz[], $10::text[]
  ) as ended (id, locked_at, attempts, keyed, keep, started_at, how)
),
-- part: freed_queues
,
gone as (
  delete from :"schema"._private_jobs as jobs
  using ended
  where jobs.id = any (array[ended.id])
    and coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
  returning
    jobs.*, ended.attempts as attempt, ended.keep, ended.started_at,
    :"schema".backfill_attempt_records(
      jobs.id,
      :"schema".backfill_attempt_record(
        ended.attempts, ended.how, $1::text, ended.started_at, null, jobs.flags -> 'backfill.cancel' ->> 'reason', null
      )
    ) as records
),
forgotten as (
  delete from :"schema".backfill_attempts as old
  using gone
  where old.job_id = any (array[gone.id])
),
kept as (
  select :"schema".backfill_keep_cancelled(
    gone.id, gone.task_id, gone.job_queue_id, gone.attempt, gone.max_attempts, gone.priority, gone.key, gone.created_at,
    gone.run_at, gone.started_at, gone.flags, $1::text, gone.keep, gone.records
  ) as job_id
  from gone
),
-- part: telling
select gone.id, gone.locked_at, (select count(*) from told)
from gone
