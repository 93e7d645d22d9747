-- does: Holds jobs as hold_window.sql does, for a lane that passes over the jobs of some tasks: of one priority and run_at it
--   begins behind the place in the table where the last look ended. Gives the place where it ends itself, if it took all it found.
-- locks: _private_jobs rows for update, skip locked
-- index: jobs_no_queue_index
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 lows smallint[], $5 highs smallint[],
--   $6 floors timestamptz[], $7 slots integer (that are free), $8 budget bigint (bytes of payloads beyond them),
--   $9 tie smallint (priority), $10 times timestamptz[] (the last time before its run_at, and that run_at), $11 place tid,
--   $12 bound tid (then the lane's own)
with
-- part: parallel_pick_tied
, pick as not materialized (
  select ctid, size
  from parallel
),
-- part: fits
, ended as (
  select max(ctid)::text as place
  from parallel
  where (select jobs from fits) is null
    and (priority, run_at) = (select priority, run_at from parallel order by priority desc, run_at desc limit 1)
),
clock as materialized (
  select clock_timestamp() as now
)
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, (jobs.attempts + 1)::smallint as attempts,
  jobs.max_attempts, jobs.last_error, jobs.created_at, (select now from clock) as updated_at, jobs.key,
  (select now from clock) as locked_at, $1::text as locked_by, jobs.revision, jobs.flags, jobs.ctid, jobs.xmin,
  (select jobs from fits) as fits, (select place from ended) as place
from :"schema"._private_jobs as jobs
where jobs.ctid = any (array(select ctid from pick limit (select jobs from fits)))
