-- does: Ends attempts well: deletes their jobs and frees their queues, each only while it is still locked by this attempt;
--   gives back the ids that it found, with the times of their locks.
-- locks: _private_jobs rows (delete), _private_job_queues rows (update)
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[]
-- The fence is wrapped in coalesce so that the planner makes no guess of it: by statistics of a while ago nothing is locked
-- by this worker, and it would compare each of its jobs with each attempt.
with ended as (
  select *
  from unnest($2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[])
    as ended (id, locked_at, queue_id, queue_locked_at)
),
-- part: freed_queues
delete from :"schema"._private_jobs as jobs
using ended
where jobs.id = ended.id
  and coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
returning jobs.id, jobs.locked_at
