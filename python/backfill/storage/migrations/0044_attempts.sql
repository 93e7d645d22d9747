-- does: Makes the table of the attempts that did not complete, and lets the roles use it that have a worker's printed grants
--   already. Gives dead letters and kept ends a column for the attempts of their jobs.
-- foundation: no
-- transaction: yes
-- breaking: no

-- The statement that ends an attempt without completing its job writes the row. Other programs delete jobs without knowing
-- this table, and a foreign key would cost each of their deletes: so a row may outlive its job, nobody is shown it then,
-- and workers delete it. Ids of jobs are never used again. `id` gives the order; numbers of attempts can be lowered.
create table :"schema".backfill_attempts (
  job_id bigint not null,
  id bigint not null generated always as identity,
  attempt integer not null,
  how text not null constraint backfill_attempts_how_check check (
    how in ('failed', 'timed_out', 'deadline', 'snoozed', 'interrupted', 'cancelled', 'lost')
  ),
  worker_id text,
  started_at timestamptz,
  ended_at timestamptz not null default now(),
  error_type text,
  message text,
  traceback text,
  constraint backfill_attempts_pkey primary key (job_id, id)
) with (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

alter table :"schema".backfill_attempts enable row level security;

comment on table :"schema".backfill_attempts is
  'Attempts of jobs that are still in the queue and that did not complete: the newest 20 of a job.';

alter table :"schema".backfill_dlq add column if not exists attempt_records json;
alter table :"schema".backfill_ends add column attempt_records json;

comment on column :"schema".backfill_dlq.attempt_records is
  'The attempts of the job that did not complete, oldest first, the newest 20; null where none are known.';
comment on column :"schema".backfill_ends.attempt_records is
  'The attempts of the job that did not complete, oldest first, the newest 20; null where there were none.';

-- One attempt as dead letters and ends keep it; null where nothing is to be kept of it.
create function :"schema".backfill_attempt_record(
  attempt integer, how text, worker_id text, started_at timestamptz, error_type text, message text, traceback text
) returns json
language sql stable
as $body$
  select case
    when how is not null then json_build_object(
      'attempt', attempt, 'how', how, 'worker_id', worker_id, 'started_at', started_at, 'ended_at', now(),
      'error_type', error_type, 'message', message, 'traceback', traceback
    )
  end
$body$;

-- The attempts of a job, as dead letters and ends keep them, with one more that is just ending; null where there are none.
create function :"schema".backfill_attempt_records(job_id bigint, newest json) returns json
language sql stable
as $body$
  select json_agg(kept.record order by kept.id)
  from (
    (
      select
        attempts.id,
        json_build_object(
          'attempt', attempts.attempt, 'how', attempts.how, 'worker_id', attempts.worker_id,
          'started_at', attempts.started_at, 'ended_at', attempts.ended_at, 'error_type', attempts.error_type,
          'message', attempts.message, 'traceback', attempts.traceback
        ) as record
      from :"schema".backfill_attempts as attempts
      where attempts.job_id = backfill_attempt_records.job_id
      order by attempts.id desc
      limit case when newest is null then 20 else 19 end
    )
    union all
    select 9223372036854775807, newest
    where newest is not null
  ) as kept
$body$;
