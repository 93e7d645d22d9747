-- does: Makes the index by which the jobs that a worker has locked are found.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_locked
-- breaking: no

create index concurrently backfill_jobs_locked
on :"schema"._private_jobs (locked_by)
where (locked_at is not null);
