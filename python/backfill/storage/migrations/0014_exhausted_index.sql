-- does: Makes the index by which jobs are found that other programs have failed for good.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_exhausted
-- breaking: no

create index concurrently backfill_jobs_exhausted
on :"schema"._private_jobs (id)
where (locked_at is null and attempts >= max_attempts);
