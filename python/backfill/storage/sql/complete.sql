-- does: Ends attempts well: deletes their jobs and frees their queues, each only while it is still locked by this attempt;
--   gives back the ids that it found, with the times of their locks.
-- locks: _private_jobs rows (delete), _private_job_queues rows (update)
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[]
with
-- part: freed_queues
delete from :"schema"._private_jobs as jobs
where jobs.id = any ($2::bigint[])
  and coalesce(
    jobs.locked_by = $1::text
    and (jobs.id, jobs.locked_at) in (select * from unnest($2::bigint[], $3::timestamptz[])),
    false
  )
returning jobs.id, jobs.locked_at
