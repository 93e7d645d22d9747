-- Writes what is held, and marks the jobs that have a row of progress now. A row that another statement of this worker has
-- inserted meanwhile is overwritten: what is unconfirmed is given again, so the newer values are all there.
marked as (
  update :"schema"._private_jobs as jobs
  set flags = case when jsonb_typeof(jobs.flags) = 'object' then jobs.flags else '{}' end || '{"backfill.progress": true}'
  from held
  where jobs.id = any (array[held.id])
    and not coalesce(jobs.flags ? 'backfill.progress', false)
),
updated as (
  update :"schema".backfill_progress as progress
  set
    attempt = held.attempt,
    done = case when held.stepped then held.done else progress.done end,
    total = case when held.stepped then held.total else progress.total end,
    note = case when held.stepped then held.note else progress.note end,
    checkpoint = case when held.saved then held.checkpoint else progress.checkpoint end,
    progress_at = now()
  from held
  where progress.job_id = any (array[held.id])
  returning progress.job_id
),
inserted as (
  insert into :"schema".backfill_progress (job_id, attempt, done, total, note, checkpoint)
  select held.id, held.attempt, held.done, held.total, held.note, held.checkpoint
  from held
  where held.id not in (select updated.job_id from updated)
  on conflict (job_id) do update
  set
    attempt = excluded.attempt, done = excluded.done, total = excluded.total, note = excluded.note,
    checkpoint = excluded.checkpoint, progress_at = excluded.progress_at
)
