-- does: Cancels jobs by their ids: deletes those that wait, and marks those that our workers hold; gives a row for each that
--   it found, with what became of it.
-- locks: _private_jobs rows (delete, update), _private_job_queues rows that are held for them (update, skip locked),
--   backfill_control rows (insert; delete, skip locked), new backfill_ends rows,
--   backfill_reservations rows of keys whose jobs were deleted (delete, skip locked)
-- index: none: its work is done in a function
-- params: $1 job_ids bigint[], $2 reason text, $3 keep double precision (seconds, null for ten minutes)
select job_id, status, worker, reason
from :"schema".backfill_cancel_jobs($1::bigint[], $2::text, $3::double precision)
