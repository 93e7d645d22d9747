-- does: Makes our ledger of migrations. Like the contract's it has no row level security: it tells numbers only. A row is
--   skipped where another program had made already what that migration makes.
-- locks: none
-- index: none: it only makes
-- params: none
create table :"schema".backfill_migrations (
  id integer not null constraint backfill_migrations_pkey primary key,
  name text not null,
  breaking boolean not null,
  skipped boolean not null default false,
  applied_at timestamptz not null default now()
)
