-- does: Adds the jobs of dead letters again, each marked with its entry unless it has a key, and notes it in the entries; gives
--   back the entries' ids and the jobs'. What is null stays as the entry has it; their run_at is now unless it is said. One
--   without a key whose job is there still is passed over; an old deadline is dropped.
-- locks: backfill_dlq rows (update; those without a key before their jobs are added, so that two calls add one job each), the
--   _private_jobs rows of their keys, what add_job locks
-- index: backfill_dlq_pkey
-- params: $1 ids bigint[], $2 notes text, $3 payload json, $4 priority integer, $5 run_at timestamptz, $6 delay interval
with locked as materialized (
  select entries.*
  from :"schema".backfill_dlq as entries
  where entries.id = any($1::bigint[])
    and entries.job_key is null
    and not :"schema".backfill_waits(entries.requeued_job_id)
  order by entries.id
  for update
),
chosen as materialized (
  select * from locked
  union all
  (
    select entries.*
    from :"schema".backfill_dlq as entries
    where entries.id = any($1::bigint[])
      and entries.job_key is not null
    order by entries.job_key collate "C"
  )
),
added as materialized (
  select chosen.id as entry, jobs.id
  from chosen
  cross join lateral :"schema".add_job(
    identifier := chosen.task_identifier,
    payload := coalesce($3::json, chosen.payload_json, chosen.payload::json),
    queue_name := nullif(chosen.queue_name, ''),
    run_at := coalesce($5::timestamptz, clock_timestamp() + coalesce($6::interval, interval '0')),
    max_attempts := coalesce(nullif(greatest(chosen.max_attempts, 0), 0), 8),
    job_key := chosen.job_key,
    priority := coalesce($4::integer, chosen.priority),
    flags := array(
      select flag
      from jsonb_object_keys(case when jsonb_typeof(chosen.flags) = 'object' then chosen.flags else '{}' end) as flag
      where not starts_with(flag, 'backfill.deadline:')
      union all
      select 'backfill.dead_letter:' || chosen.id where chosen.job_key is null
    ),
    job_key_mode := 'replace'
  ) as jobs
)
update :"schema".backfill_dlq as entries
set
  requeued_count = entries.requeued_count + 1,
  last_requeued_at = now(),
  requeued_job_id = added.id,
  notes = nullif(concat_ws(E'\n', entries.notes, $2::text), '')
from added
where entries.id = added.entry
returning entries.id, added.id as job_id
