-- does: Makes the index of jobs that neither wait nor are held by anybody named: those failed for good, and locks without an owner.
--   A claim or settlement of ours writes nothing to it. A collector of queues finds by it that one is still used.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_stuck
-- breaking: no

create index concurrently backfill_jobs_stuck
on :"schema"._private_jobs (job_queue_id, locked_at)
where (is_available = false and locked_by is null);
