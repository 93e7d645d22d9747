-- does: Ends attempts badly: keeps the error, sets when to try again (after $8 seconds, else by the contract's schedule) and
--   unlocks job and queue; where the job's flags ask for it, the queue is held for the job's next attempt. A final one, or the
--   last, moves its job to the dead letters. A job that was replaced or removed while it ran is deleted; whether it was is seen
--   once its row is held, since a producer may be at it right now. Gives back the ids that it found, with the times of their
--   locks, whether each was its job's last, and the dead letter. Each attempt is noted, with how it ended; one whose `how` is
--   null is not.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), backfill_dlq rows (insert, update),
--   backfill_attempts rows (insert, delete)
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[], $8 delays double precision[], $9 errors text[], $10 final boolean[],
--   $11 started_ats timestamptz[], $12 hows text[], $13 error_types text[], $14 messages text[], $15 tracebacks text[]
-- part: failing
select held.id, held.locked_at, held.last and not held.superseded as last, buried.entry
from held
left join buried on buried.id = held.id
