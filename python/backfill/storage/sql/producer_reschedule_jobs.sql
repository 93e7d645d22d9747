-- does: Changes when and how jobs run that wait, by their ids or keys, for a producer; what is null stays; gives back their
--   rows.
-- locks: the _private_jobs rows (update)
-- index: none: its work is done in a function
-- params: $1 job_ids bigint[], $2 run_at timestamptz, $3 delay interval, $4 priority integer, $5 attempts integer,
--   $6 max_attempts integer, $7 job_keys text[]
select
  jobs.id, jobs.job_queue_id, jobs.task_id, jobs.payload, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
  jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
  names.task_identifier, names.queue_name
from :"schema".backfill_reschedule_jobs(
  $1::bigint[],
  $7::text[],
  coalesce($2::timestamptz, clock_timestamp() + $3::interval),
  $4::integer,
  $5::integer,
  $6::integer
) as jobs
cross join lateral :"schema".backfill_see_names(jobs.task_id, jobs.job_queue_id) as names
order by jobs.id
