-- does: Ends attempts badly whose tasks keep their jobs' ends, as fail does; where none follows it writes the end as well and
--   tells whoever awaits it.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), backfill_dlq rows (insert, update),
--   backfill_attempts rows (insert, delete), new backfill_ends rows
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[], $8 delays double precision[], $9 errors text[], $10 final boolean[],
--   $11 started_ats timestamptz[], $12 hows text[], $13 error_types text[], $14 messages text[], $15 tracebacks text[],
--   $16 items text[] (of a batch: whether each of its elements failed, as `{t,f,t}`; `{}` for all),
--   $17 keys text[] (of a batch: the key that it had when it was claimed), $18 keeps double precision[] (seconds)
-- part: failing
,
kept_others as (
  insert into :"schema".backfill_ends (
    -- part: kept_columns
  )
  select
    gone.id, (select identifier from :"schema"._private_tasks where id = gone.task_id),
    case when gone.superseded then 'superseded' else 'failed' end,
    gone.attempts, gone.max_attempts, gone.priority,
    (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
    gone.key, gone.created_at, gone.run_at, gone.started_at, now() + keeping.keep * interval '1 second', $1::text, gone.error,
    gone.records
  from gone
  join unnest($2::bigint[], $3::timestamptz[], $18::double precision[]) as keeping (id, locked_at, keep)
    on keeping.id = gone.id
    and keeping.locked_at = gone.locked_at
  where not gone.cancelled
  returning job_id
),
kept as (
  select job_id
  from kept_others
  union all
  select :"schema".backfill_keep_cancelled(
    gone.id, gone.task_id, gone.job_queue_id, gone.attempts, gone.max_attempts, gone.priority, gone.key, gone.created_at,
    gone.run_at, gone.started_at, gone.flags, $1::text, keeping.keep, gone.records
  )
  from gone
  join unnest($2::bigint[], $3::timestamptz[], $18::double precision[]) as keeping (id, locked_at, keep)
    on keeping.id = gone.id
    and keeping.locked_at = gone.locked_at
  where gone.cancelled
),
-- part: telling
select
  held.id, held.locked_at, held.last and not held.superseded and not held.cancelled as last, buried.entry,
  (select count(*) from told)
from held
left join buried on buried.id = held.id
