-- does: Makes the table in which each running worker has its row.
-- foundation: no
-- transaction: yes
-- breaking: no

create table :"schema".backfill_workers (
  id text not null constraint backfill_workers_pkey primary key,
  host text not null,
  pid integer not null,
  started_at timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  protocol integer not null,
  lanes jsonb not null default '[]'::jsonb,
  tasks text[] not null default '{}',
  version text not null
) with (fillfactor = 50);

alter table :"schema".backfill_workers enable row level security;

comment on table :"schema".backfill_workers is
  'One row a running worker of backfill, with its heartbeat. Half of each page is left free, so that a beat stays on it.';
