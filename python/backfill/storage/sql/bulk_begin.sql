-- does: What a bulk transaction must know first: whether COPY is refused to this role, and the database's time: of the
--   transaction, for jobs that are due at once, and of now, for delays.
-- locks: none
-- index: pg_namespace_nspname_index, pg_class_relname_nsp_index
-- params: $1 schema text
select row_security_active(classes.oid), now(), clock_timestamp()
from pg_catalog.pg_class as classes
join pg_catalog.pg_namespace as namespaces on namespaces.oid = classes.relnamespace
where namespaces.nspname = $1::name
  and classes.relname = '_private_jobs'
