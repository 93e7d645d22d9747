-- does: Lets a worker's row say that its loop lags and that it was given up, and makes the table of what operators say to the fleet.
-- foundation: no
-- transaction: yes
-- breaking: no

alter table :"schema".backfill_workers
  add column lag double precision not null default 0,
  add column given_up_at timestamptz;

-- A row a version; workers learn the newest with their heartbeat, and read it when it is new to them.
create table :"schema".backfill_control (
  version bigint not null generated always as identity constraint backfill_control_pkey primary key,
  said jsonb not null default '{}'::jsonb,
  said_at timestamptz not null default now(),
  said_by text
);

alter table :"schema".backfill_control enable row level security;

comment on table :"schema".backfill_control is 'What operators say to the fleet, a row a version.';
