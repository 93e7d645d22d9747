-- does: Deletes the progress of jobs that are gone. It is sent after the statement that ends the jobs, in its transaction.
-- locks: backfill_progress rows (delete)
-- index: backfill_progress_pkey, jobs_pkey1
-- params: $1 ids bigint[]
delete from :"schema".backfill_progress as old
where old.job_id = any ($1::bigint[])
  and (select jobs.id from :"schema"._private_jobs as jobs where jobs.id = any (array[old.job_id])) is null
