-- does: Claims the first jobs for a worker: parallel ones, and the first job of each queue that was just locked (of a queue
--   that is held for a job's retry, that job alone), merged in the order of the contract; raises their attempts and locks the
--   queues of those it takes. A job's updated_at is made equal to its locked_at, so that a later difference shows that
--   somebody else has written the row.
-- locks: _private_jobs rows for update, skip locked; _private_job_queues rows that are locked already
-- index: jobs_no_queue_index, backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 lows smallint[], $5 highs smallint[],
--   $6 floors timestamptz[], $7 slots integer (that are free), $8 budget bigint (bytes of payloads beyond them; then the lane's own)
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
-- What else is asked of a head is wrapped in coalesce, so that no other index than that of its id serves it.
with
-- part: parallel_pick
,
-- part: queue_heads
, serial as materialized (
  select
    jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
    case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
  from heads
  join :"schema"._private_jobs as jobs on jobs.id = any (array[heads.id])
  where coalesce(jobs.is_available and jobs.job_queue_id = heads.queue_id and jobs.run_at <= now(), false)
  for update of jobs skip locked
),
pick as (
  select ctid, size
  from (select * from parallel union all select * from serial) as both_kinds
  order by priority, run_at, id
  limit $2::integer
),
-- part: fits
, claimed as (
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
-- shares: where the claim is one of a limited task, it writes its shares here
select
  claimed.id, claimed.job_queue_id, claimed.task_id, claimed.payload, claimed.priority, claimed.run_at,
  claimed.attempts, claimed.max_attempts, claimed.last_error, claimed.created_at, claimed.updated_at, claimed.key,
  claimed.locked_at, claimed.locked_by, claimed.revision, claimed.flags, queued.queue_name,
  (select jobs from fits) as fits
from claimed
left join queued on queued.id = claimed.job_queue_id
