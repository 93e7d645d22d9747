-- does: Removes the waiting job of an id or of a key for a producer; its key is free then, if it was reserved. Gives back
--   the row, if there was one.
-- locks: the _private_jobs row (delete), the backfill_reservations row of its key (delete, skip locked),
--   the _private_job_queues row that is held for it (update, skip locked)
-- index: none: its work is done in a function
-- params: $1 job_id bigint, $2 job_key text
with jobs as materialized (
  select *
  from :"schema".backfill_remove_job($1::bigint, $2::text)
),
-- part: freed_for_jobs
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  names.task_identifier, names.queue_name
from jobs
cross join lateral :"schema".backfill_see_names(jobs.task_id, jobs.job_queue_id) as names
where (select queues from freed) is not null
