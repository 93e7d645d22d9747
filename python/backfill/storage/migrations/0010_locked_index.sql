-- does: Makes the index by which the jobs that a worker has locked are found, also by force_unlock_workers.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_locked
-- breaking: no

create index concurrently backfill_jobs_locked
on :"schema"._private_jobs (locked_by)
where (locked_by is not null);
