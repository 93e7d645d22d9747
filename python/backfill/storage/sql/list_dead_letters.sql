-- does: Gives the dead letters that match, newest first, from a place on. What is null filters nothing; a text is looked for in
--   the errors of the newest so many that match otherwise. Times are in microseconds, null where they are infinite.
-- locks: none
-- index: backfill_dlq_newest
-- params: $1 ids bigint[], $2 task text, $3 queue text, $4 key text, $5 failed_after timestamptz, $6 failed_before timestamptz,
--   $7 error_type text, $8 fingerprint text, $9 search text, $10 newest bigint,
--   $11 from_failed_at bigint, $12 from_id bigint, $13 wanted integer
-- part: dead_letter_page
select
  entries.id, entries.original_job_id, entries.task_identifier,
  coalesce(entries.payload_json::text, entries.payload::text) as payload,
  nullif(entries.queue_name, '') as queue_name, entries.priority, entries.job_key, entries.attempts, entries.max_attempts,
  array_to_json(array(
    select jsonb_object_keys(case when jsonb_typeof(entries.flags) = 'object' then entries.flags else '{}' end)
  ))::text as flags,
  entries.failure_reason, entries.failure_count, entries.last_error #>> '{}' as last_error, entries.error_type,
  entries.fingerprint,
  case when isfinite(entries.original_created_at) then (extract(epoch from entries.original_created_at) * 1000000)::numeric(30) end
    as original_created_at,
  case when isfinite(entries.original_run_at) then (extract(epoch from entries.original_run_at) * 1000000)::numeric(30) end
    as original_run_at,
  case when isfinite(entries.failed_at) then (extract(epoch from entries.failed_at) * 1000000)::numeric(30) end
    as failed_at,
  entries.requeued_count,
  case when isfinite(entries.last_requeued_at) then (extract(epoch from entries.last_requeued_at) * 1000000)::numeric(30) end
    as last_requeued_at,
  entries.requeued_job_id, entries.notes, entries.earlier::text as earlier,
  entries.place
from entries
order by entries.failed_at desc, entries.id desc
