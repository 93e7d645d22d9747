-- does: Says whether a schema is there, which of the two ledgers of migrations it has, and whether it has the jobs.
-- locks: none
-- index: none: it asks the catalogue by name
-- params: $1 schema text
select
  exists (select from pg_catalog.pg_namespace where nspname = $1::text) as schema_there,
  to_regclass(format('%I.migrations', $1::text)) is not null as contract_there,
  to_regclass(format('%I.backfill_migrations', $1::text)) is not null as ours_there,
  to_regclass(format('%I._private_jobs', $1::text)) is not null as jobs_there
