-- does: Claims as claim.sql does, for a lane that passes over the jobs of some tasks: of the parallel jobs of one priority and
--   run_at it begins behind the place in the table where the last claim ended, and takes no serial jobs that come after
--   these. Gives the place where it ends itself, if it took all it found.
-- locks: _private_jobs rows for update, skip locked; _private_job_queues rows that are locked already
-- index: jobs_no_queue_index, backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 lows smallint[], $5 highs smallint[],
--   $6 floors timestamptz[], $7 slots integer (that are free), $8 budget bigint (bytes of payloads beyond them),
--   $9 tie smallint (priority), $10 times timestamptz[] (the last time before its run_at, and that run_at), $11 place tid,
--   $12 bound tid (then the lane's own)
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with
-- part: parallel_pick_tied
,
-- part: queue_heads
, serial as materialized (
  select
    jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
    case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
  from heads
  join :"schema"._private_jobs as jobs on jobs.id = any (array[heads.id])
  where coalesce(jobs.is_available and jobs.job_queue_id = heads.queue_id and jobs.run_at <= now(), false)
    and ($9::smallint is null or (jobs.priority, jobs.run_at) <= ($9::smallint, ($10::timestamptz[])[2]))
  for update of jobs skip locked
),
pick as (
  select ctid, size, priority, run_at, is_parallel
  from (select *, true as is_parallel from parallel union all select *, false from serial) as both_kinds
  order by priority, run_at, id
  limit $2::integer
),
-- part: fits
, ended as (
  select max(ctid)::text as place
  from pick
  where is_parallel
    and (select jobs from fits) is null
    and (priority, run_at) = (select priority, run_at from pick where is_parallel order by priority desc, run_at desc limit 1)
),
claimed as (
  update :"schema"._private_jobs as jobs
  set attempts = jobs.attempts + 1, locked_by = $1::text, locked_at = now(), updated_at = now()
  where jobs.ctid = any (array(select ctid from pick limit (select jobs from fits)))
  returning jobs.*
),
queued as (
  update :"schema"._private_job_queues as queues
  set locked_by = $1::text, locked_at = now()
  from claimed
  where queues.id = any (array[claimed.job_queue_id])
  returning queues.id, queues.queue_name
)
select
  claimed.id, claimed.job_queue_id, claimed.task_id, claimed.payload, claimed.priority, claimed.run_at,
  claimed.attempts, claimed.max_attempts, claimed.last_error, claimed.created_at, claimed.updated_at, claimed.key,
  claimed.locked_at, claimed.locked_by, claimed.revision, claimed.flags, queued.queue_name,
  (select jobs from fits) as fits, (select place from ended) as place
from claimed
left join queued on queued.id = claimed.job_queue_id
