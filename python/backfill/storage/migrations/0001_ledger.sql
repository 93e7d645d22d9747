-- does: makes the schema, where it is missing, and backfill's own ledger of migrations in it
-- part: own
-- breaking: no

-- "create schema if not exists" asks for the right to create schemas even where the schema is there.
do $body$
begin
  if not exists (select from pg_catalog.pg_namespace where nspname = :'schema') then
    create schema :"schema";
  end if;
end;
$body$;

-- Like the contract's ledger it has no row level security: whoever may read it learns numbers only.
create table :"schema".backfill_migrations (
  id integer constraint backfill_migrations_pkey primary key,
  name text not null,
  breaking boolean not null,
  applied_at timestamptz not null default now()
);
