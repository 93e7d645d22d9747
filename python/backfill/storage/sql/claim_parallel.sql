-- does: Claims the first parallel jobs for a worker, in the order of the contract, and raises their attempts. A job's
--   updated_at is made equal to its locked_at, so that a later difference shows that somebody else has written the row.
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
update :"schema"._private_jobs as jobs
set attempts = jobs.attempts + 1, locked_by = $1::text, locked_at = now(), updated_at = now()
where jobs.ctid = any (array(select ctid from pick limit (select jobs from fits)))
returning
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  (select jobs from fits) as fits
