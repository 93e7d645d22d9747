-- does: Ends attempts badly: keeps the error, sets when to try again (after $8 seconds, else by the contract's schedule) and
--   unlocks job and queue; where the job's flags ask for it, the queue is held for the job's next attempt. A final one, or the
--   last, moves its job to the dead letters. A job that was replaced or removed while it ran is deleted; one that was
--   cancelled ends as cancelled. Whether it was is seen once its row is held, since somebody may be at it right now. Gives back
--   the ids that it found, with the times of their locks, whether each was its job's last, failed one, and the dead letter.
--   Each attempt is noted, with how it ended; one whose `how` is null is not. Of a batch, the elements that failed may be named:
--   the job goes on with these alone.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), backfill_dlq rows (insert, update),
--   backfill_attempts rows (insert, delete), new backfill_ends rows
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[], $8 delays double precision[], $9 errors text[], $10 final boolean[],
--   $11 started_ats timestamptz[], $12 hows text[], $13 error_types text[], $14 messages text[], $15 tracebacks text[],
--   $16 items text[] (of a batch: whether each of its elements failed, as `{t,f,t}`; `{}` for all), $17 keys text[]
--   (of a batch: the key that it had when it was claimed)
-- part: failing
,
kept as (
  select :"schema".backfill_keep_cancelled(
    gone.id, gone.task_id, gone.job_queue_id, gone.attempts, gone.max_attempts, gone.priority, gone.key, gone.created_at,
    gone.run_at, gone.started_at, gone.flags, $1::text, null, gone.records
  ) as job_id
  from gone
  where gone.cancelled
),
-- part: telling
select
  held.id, held.locked_at, held.last and not held.superseded and not held.cancelled as last, buried.entry,
  (select count(*) from told)
from held
left join buried on buried.id = held.id
