-- does: Makes the table of ends: how jobs finished whose tasks ask for it, by the day on which each row expires.
-- foundation: no
-- transaction: yes
-- breaking: no

create table :"schema".backfill_ends (
  job_id bigint not null,
  task_identifier text not null,
  how text not null check (how in ('completed', 'failed', 'discarded', 'cancelled', 'superseded')),
  attempts integer not null,
  max_attempts integer not null,
  priority integer not null,
  queue_name text,
  job_key text,
  created_at timestamptz not null,
  run_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz not null default now(),
  expires_at timestamptz not null,
  worker_id text,
  error text,
  result json
) partition by range (expires_at);

-- No settlement may fail for want of a partition: what has none is here until its own is made.
create table :"schema".backfill_ends_default partition of :"schema".backfill_ends default;

create index backfill_ends_job on :"schema".backfill_ends (job_id);
create index backfill_ends_newest on :"schema".backfill_ends (ended_at, job_id);

alter table :"schema".backfill_ends enable row level security;
alter table :"schema".backfill_ends_default enable row level security;

comment on table :"schema".backfill_ends is 'How jobs finished whose tasks keep it, in partitions by day of expiry (UTC).';
