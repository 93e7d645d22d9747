-- does: Makes the table of reservations, by which no second job of a key is added for a while, even when the first is done.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A row is written by the transaction that adds the job, and again when its time is over and another job takes the key. Nobody
-- writes it when the job ends. Rows whose time is over are deleted by workers.
create table :"schema".backfill_reservations (
  job_key text not null,
  job_id bigint not null,
  reserved_until timestamptz not null,
  constraint backfill_reservations_pkey primary key (job_key)
) with (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

create index backfill_reservations_reserved_until_idx on :"schema".backfill_reservations (reserved_until);

alter table :"schema".backfill_reservations enable row level security;

comment on table :"schema".backfill_reservations is
  'Keys of jobs that were added with unique_for: until the time is over, no second job of the key is added in this way.';
comment on column :"schema".backfill_reservations.job_id is 'The job that was added; it may have ended since.';
