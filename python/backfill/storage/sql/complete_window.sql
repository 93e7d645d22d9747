-- does: Deletes the jobs that have completed within a window, which holds their rows' locks.
-- locks: _private_jobs rows (delete) that the transaction has locked already
-- index: jobs_pkey1
-- params: $1 ids bigint[]
delete from :"schema"._private_jobs as jobs
where jobs.id = any ($1::bigint[])
