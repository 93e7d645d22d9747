-- A new job begins with the attempts of its dead letter; one that was waiting, and is replaced, has its own.
copied as (
  insert into :"schema".backfill_attempts (
    job_id, attempt, how, worker_id, started_at, ended_at, error_type, message, traceback
  )
  select
    added.id, old.attempt, old.how, old.worker_id, old.started_at, old.ended_at, old.error_type, old.message, old.traceback
  from added
  cross join lateral json_to_recordset(
    case when json_typeof(added.attempt_records) = 'array' then added.attempt_records else '[]' end
  ) as old (
    attempt integer, how text, worker_id text, started_at timestamptz, ended_at timestamptz, error_type text, message text,
    traceback text
  )
  where added.revision = 0
),
-- It goes on from the checkpoint of its dead letter, unless it has another payload.
resumed as (
  insert into :"schema".backfill_progress (job_id, attempt, done, total, note, checkpoint, progress_at)
  select added.id, old.attempt, old.done, old.total, old.note, old.checkpoint, old.progress_at
  from added
  join :"schema".backfill_progress as old on old.job_id = any (array[added.original_job_id])
  where $3::json is null
    and added.id <> added.original_job_id
  on conflict (job_id) do update
  set
    attempt = excluded.attempt, done = excluded.done, total = excluded.total, note = excluded.note,
    checkpoint = excluded.checkpoint, progress_at = excluded.progress_at
)
