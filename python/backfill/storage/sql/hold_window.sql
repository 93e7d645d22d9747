-- does: Holds the first parallel jobs by the locks of their rows, until the transaction ends, in the order of the contract. The
--   rows are given as a claim would give them, and are not changed: attempts is the number of the attempt that begins, and
--   locked_at the time of this look. With ctid and xmin, a row can be recognized after the transaction was lost.
-- locks: _private_jobs rows for update, skip locked
-- index: jobs_no_queue_index
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 lows smallint[], $5 highs smallint[],
--   $6 floors timestamptz[], $7 slots integer (that are free), $8 budget bigint (bytes of payloads beyond them; then the lane's own)
with
-- part: parallel_pick
, pick as not materialized (
  select ctid, size
  from parallel
),
-- part: fits
, clock as materialized (
  select clock_timestamp() as now
)
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, (jobs.attempts + 1)::smallint as attempts,
  jobs.max_attempts, jobs.last_error, jobs.created_at, (select now from clock) as updated_at, jobs.key,
  (select now from clock) as locked_at, $1::text as locked_by, jobs.revision, jobs.flags, jobs.ctid, jobs.xmin,
  (select jobs from fits) as fits
from :"schema"._private_jobs as jobs
where jobs.ctid = any (array(select ctid from pick limit (select jobs from fits)))
