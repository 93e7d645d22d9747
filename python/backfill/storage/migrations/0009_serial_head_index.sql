-- does: Makes the index by which claims find the first waiting job of a serial queue.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_serial_head
-- breaking: no

create index concurrently backfill_jobs_serial_head
on :"schema"._private_jobs (job_queue_id, priority, run_at, id) include (task_id)
where (is_available = true and job_queue_id is not null);
