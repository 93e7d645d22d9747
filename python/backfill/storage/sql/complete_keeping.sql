-- does: Ends attempts well whose tasks keep their jobs' ends: deletes their jobs and frees their queues, as complete does,
--   writes the ends and tells whoever awaits one; gives back the ids that it found, with the times of their locks. Attempts
--   that were noted of a job go with it into its end.
-- locks: _private_jobs rows (delete), _private_job_queues rows (update), backfill_attempts rows (delete), new backfill_ends
--   rows
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 keeps double precision[] (seconds), $7 started_ats timestamptz[], $8 hows text[], $9 errors text[], $10 results text[]
-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with ended as (
  select *
  from unnest(
    $2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[],
    $6::double precision[], $7::timestamptz[], $8::text[], $9::text[], $10::text[]
  ) as ended (id, locked_at, queue_id, queue_locked_at, keep, started_at, how, error, result)
),
-- part: freed_queues
,
gone as (
  delete from :"schema"._private_jobs as jobs
  using ended
  where jobs.id = any (array[ended.id])
    and coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
  returning
    jobs.*, ended.keep, ended.started_at, ended.how, ended.error, ended.result,
    case
      when exists (select from :"schema".backfill_attempts as attempts where attempts.job_id = any (array[jobs.id]))
        then :"schema".backfill_attempt_records(jobs.id, null)
    end as records
),
forgotten as (
  delete from :"schema".backfill_attempts as old
  using gone
  where gone.records is not null
    and old.job_id = any (array[gone.id])
),
kept as (
  insert into :"schema".backfill_ends (
    -- part: kept_columns
    , result
  )
  select
    gone.id, (select identifier from :"schema"._private_tasks where id = gone.task_id),
    case when gone.how = 'discarded' and gone.flags ? 'backfill.cancel' then 'cancelled' else gone.how end,
    gone.attempts, gone.max_attempts, gone.priority,
    (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
    gone.key, gone.created_at, gone.run_at, gone.started_at, now() + gone.keep * interval '1 second', $1::text, gone.error,
    gone.records, gone.result::json
  from gone
  returning job_id
),
-- part: telling
select gone.id, gone.locked_at, (select count(*) from told)
from gone
