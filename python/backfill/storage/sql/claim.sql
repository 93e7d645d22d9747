-- does: Claims the first jobs for a worker: parallel ones, and the first job of each queue that was just locked, merged in
--   the order of the contract; raises their attempts and locks the queues of those it takes. A job's updated_at is made equal
--   to its locked_at, so that a later difference shows that somebody else has written the row.
-- locks: _private_jobs rows for update, skip locked; _private_job_queues rows that are locked already
-- index: jobs_no_queue_index, backfill_jobs_serial_head, job_queues_pkey1
-- params: $1 worker text, $2 wanted integer, $3 forbidden_flags text[], $4 lows smallint[], $5 highs smallint[],
--   $6 floors timestamptz[], $7 slots integer (that are free), $8 budget bigint (bytes of payloads beyond them; then the lane's own)
with
-- part: parallel_pick
, heads as (
  select head.id, queues.id as queue_id
  from unnest(current_setting('backfill.queues')::integer[]) as free (id)
  join :"schema"._private_job_queues as queues on queues.id = free.id
  cross join lateral (
    select jobs.id
    from :"schema"._private_jobs as jobs
    where jobs.is_available = true
      and jobs.job_queue_id = queues.id
      and jobs.run_at <= now()
      and (jobs.flags is null or not jobs.flags ?| $3::text[])
      -- lane: serial
    order by jobs.priority, jobs.run_at, jobs.id
    limit 1
  ) as head
),
serial as materialized (
  select
    jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
    case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
  from heads
  join :"schema"._private_jobs as jobs on jobs.id = heads.id
  where jobs.is_available = true
    and jobs.job_queue_id = heads.queue_id
    and jobs.run_at <= now()
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
  where queues.id = claimed.job_queue_id
  returning queues.id, queues.queue_name
)
select
  claimed.id, claimed.job_queue_id, claimed.task_id, claimed.payload, claimed.priority, claimed.run_at,
  claimed.attempts, claimed.max_attempts, claimed.last_error, claimed.created_at, claimed.updated_at, claimed.key,
  claimed.locked_at, claimed.locked_by, claimed.revision, claimed.flags, queued.queue_name,
  (select jobs from fits) as fits
from claimed
left join queued on queued.id = claimed.job_queue_id
