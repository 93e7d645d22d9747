-- does: What a bulk transaction must know first: whether COPY is refused to this role, the database's time, from which the times
--   of its jobs count, whether a temporary table can be made for rows that must wait, and whether the transaction sees what
--   others commit.
-- locks: none
-- index: pg_namespace_nspname_index, pg_class_relname_nsp_index
-- params: $1 schema text
select
  row_security_active(classes.oid) as filtered,
  clock_timestamp() as now,
  has_database_privilege(current_database(), 'TEMP') and to_regclass('pg_temp.bulk_waiting') is null as may_postpone,
  current_setting('transaction_isolation') = 'read committed' as sees_commits
from pg_catalog.pg_class as classes
join pg_catalog.pg_namespace as namespaces on namespaces.oid = classes.relnamespace
where namespaces.nspname = $1::name
  and classes.relname = '_private_jobs'
