-- does: Says whether add_job and add_jobs are this package's, which hold a task and a queue while a job comes to them. Another
--   program's may leave a job with one that was just deleted.
-- locks: none
-- index: none: it asks the catalogue by name
-- params: $1 schema text
select count(*) = 2 and bool_and(strpos(functions.prosrc, names.helper) > 0) as ours
from pg_catalog.pg_proc as functions
join pg_catalog.pg_namespace as namespaces on namespaces.oid = functions.pronamespace
join (values ('add_job', 'backfill_dedupe_job'), ('add_jobs', 'backfill_hold_names')) as names (name, helper)
  on names.name = functions.proname
where namespaces.nspname = $1::text
