-- does: Makes the index by which claims read waiting serial jobs in their order.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_serial_scan
-- breaking: no

create index concurrently backfill_jobs_serial_scan
on :"schema"._private_jobs (priority, run_at, id) include (job_queue_id, task_id)
where (is_available = true and job_queue_id is not null);
