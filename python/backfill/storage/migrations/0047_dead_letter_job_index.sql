-- does: Makes the index of dead letters by the ids of their jobs, by which the attempts of such a job are found.
-- foundation: no
-- transaction: no
-- index: backfill_dlq_job
-- breaking: no

create index concurrently backfill_dlq_job on :"schema".backfill_dlq (original_job_id);
