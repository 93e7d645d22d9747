-- does: Writes the progress and the checkpoints of running attempts, of those that still have their jobs; gives back the ids
--   of their jobs. A job whose row somebody else holds right now is left out, so that this waits for no job and cannot be part of
--   a deadlock; the worker gives it again.
-- locks: _private_jobs rows (for no key update, passing over those that are held; update), backfill_progress rows
-- index: jobs_pkey1, backfill_progress_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_micros bigint[], $4 attempts integer[], $5 stepped boolean[],
--   $6 dones double precision[], $7 totals double precision[], $8 notes text[], $9 saved boolean[], $10 checkpoints text[]
-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with
-- part: given_progress
,
-- Somebody may hold a row of progress: settlements must not wait for long behind this statement then.
hurried as materialized (
  select set_config('lock_timeout', '250ms', true) as lock_timeout
),
held as materialized (
  select given.id, given.attempt, given.stepped, given.done, given.total, given.note, given.saved, given.checkpoint::json
  from hurried
  cross join given
  join :"schema"._private_jobs as jobs on jobs.id = any (array[given.id])
  where coalesce(
      jobs.locked_by = $1::text
      and jobs.locked_at = timestamptz '2000-01-01 00:00:00+00' + given.locked_micros * interval '1 microsecond',
      false
    )
  for no key update of jobs skip locked
),
-- part: written_progress
select held.id
from held
