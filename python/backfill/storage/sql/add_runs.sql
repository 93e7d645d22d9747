-- does: Adds the jobs of runs that nobody has done yet, and advances their items. Says of each run, by its place in the
--   array, what was done (added, overlapped, refused, taken, stale, busy, unknown), and the job's id.
-- locks: the items' _private_known_crontabs rows for update, skip locked; what add_job locks; the items'
--   backfill_schedule_jobs rows (insert, update)
-- index: none: its work is done in a function
-- params: $1 runs json
select runs.place, runs.outcome, runs.job_id
from :"schema".backfill_add_runs($1::json) as runs
order by runs.place
