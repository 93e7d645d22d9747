-- does: Gives the attempts of a job that did not complete, oldest first, the newest 20: of a job in the queue those that were
--   noted since, else those that its dead letter keeps, else those that its end keeps. Times are in microseconds.
-- locks: none
-- index: backfill_attempts_pkey, jobs_pkey1, backfill_dlq_job, backfill_ends_job
-- params: $1 job bigint
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
-- The orders keep it from the indexes of the newest dead letters and ends, which would be read from end to end.
with job as materialized (
  select jobs.id
  from :"schema"._private_jobs as jobs
  where jobs.id = any (array[$1::bigint])
),
noted as materialized (
  select attempts.*
  from :"schema".backfill_attempts as attempts
  where attempts.job_id = $1::bigint
    and exists (select from job)
  order by attempts.id desc
  limit 20
),
letter as materialized (
  select entries.attempt_records
  from :"schema".backfill_dlq as entries
  where entries.original_job_id = any (array[$1::bigint])
    and json_typeof(entries.attempt_records) = 'array'
    and not exists (select from job)
  order by entries.original_job_id
  limit 1
),
kept as materialized (
  select ends.attempt_records
  from :"schema".backfill_ends as ends
  where ends.job_id = any (array[$1::bigint])
    and ends.expires_at > now()
    and json_typeof(ends.attempt_records) = 'array'
    and not exists (select from job)
    and not exists (select from letter)
  order by ends.job_id
  limit 1
),
attempts as (
  select
    noted.attempt, noted.how, noted.worker_id, noted.started_at, noted.ended_at, noted.error_type, noted.message,
    noted.traceback, noted.id as place
  from noted
  union all
  select old.*
  from (select attempt_records from letter union all select attempt_records from kept) as records
  cross join lateral rows from (
    json_to_recordset(records.attempt_records) as (
      attempt integer, how text, worker_id text, started_at timestamptz, ended_at timestamptz, error_type text,
      message text, traceback text
    )
  ) with ordinality as old (
    attempt, how, worker_id, started_at, ended_at, error_type, message, traceback, place
  )
)
select
  attempts.attempt, attempts.how, attempts.worker_id, attempts.error_type, attempts.message, attempts.traceback,
  case when isfinite(attempts.started_at) then (extract(epoch from attempts.started_at) * 1000000)::numeric(30) end as started_at,
  case when isfinite(attempts.ended_at) then (extract(epoch from attempts.ended_at) * 1000000)::numeric(30) end as ended_at
from attempts
order by attempts.place
