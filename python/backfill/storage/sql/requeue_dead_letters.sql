-- does: Adds the jobs of dead letters again, each marked with its entry unless it has a key, and notes it in the entries; gives
--   back the entries' ids and the jobs', with the names of their tasks and queues. What is null stays as the entry has it; their run_at is now unless it is said. One
--   without a key or with a list as its payload is passed over if its job is there still, another one if its job runs; an old deadline is dropped.
--   Where an entry with a key was renewed or deleted before its job was added, or that of a requeue before has begun to run,
--   nothing takes effect (SQLSTATE 40001).
-- locks: new backfill_attempts and backfill_progress rows, backfill_dlq rows (update; those without a key before their jobs are added, so that two calls add one job each), the
--   _private_jobs rows of their keys, what add_job locks
-- index: backfill_dlq_pkey, backfill_progress_pkey
-- params: $1 ids bigint[], $2 notes text, $3 payload json, $4 priority integer, $5 run_at timestamptz, $6 delay interval
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
-- part: requeued_entries
,
added as materialized (
  select
    chosen.id as entry, chosen.failure_count, chosen.failed_at, chosen.attempt_records, chosen.original_job_id, jobs.id,
    jobs.revision, chosen.joins, chosen.requeued_job_id as job_before, chosen.task_identifier as task,
    nullif(chosen.queue_name, '') as queue
  from chosen
  cross join lateral :"schema".add_job(
    identifier := chosen.task_identifier,
    payload := coalesce($3::json, chosen.payload_json, chosen.payload::json),
    queue_name := nullif(chosen.queue_name, ''),
    run_at := coalesce($5::timestamptz, clock_timestamp() + coalesce($6::interval, interval '0')),
    max_attempts := least(coalesce(nullif(greatest(chosen.max_attempts, 0), 0), 8), 32767),
    job_key := chosen.job_key,
    priority := coalesce($4::integer, least(greatest(chosen.priority, -32768), 32767)),
    flags := array(
      select flag
      from jsonb_object_keys(case when jsonb_typeof(chosen.flags) = 'object' then chosen.flags else '{}' end) as flag
      where flag !~ '^backfill\.(deadline|dead_letter):'
        and ($3::json is null or flag <> 'backfill.progress')
      union all
      select 'backfill.dead_letter:' || chosen.id where chosen.job_key is null
    ),
    job_key_mode := 'replace'
  ) as jobs
),
-- part: requeued_traces
,
noted as (
  update :"schema".backfill_dlq as entries
  set
    requeued_count = entries.requeued_count + 1,
    last_requeued_at = now(),
    requeued_job_id = added.id,
    notes = nullif(concat_ws(E'\n', entries.notes, $2::text), '')
  from added
  where entries.id = any (array[added.entry])
    and coalesce(entries.failure_count = added.failure_count and entries.failed_at = added.failed_at, false)
    -- once more, since its job may have been claimed before add_job came to it; of added, so that it is asked after that
    and not :"schema".backfill_runs(case when added.id is not null then entries.requeued_job_id end)
    -- another call may have requeued it meanwhile; its job has the items of a list already
    and (added.joins is not true or entries.requeued_job_id is not distinct from added.job_before)
  returning entries.id
)
select
  added.entry,
  case
    when noted.id is null
      then :"schema".backfill_refuse(format('dead letter %s was renewed, deleted or requeued meanwhile', added.entry), '40001')
    else added.id
  end as job_id,
  added.task,
  added.queue
from added
left join noted on noted.id = added.entry
