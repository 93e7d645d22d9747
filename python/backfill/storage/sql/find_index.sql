-- does: Says whether an index of a schema is valid; no row where there is none.
-- locks: none
-- index: none: it asks the catalogue by name
-- params: $1 schema text, $2 index text
select index.indisvalid as valid
from pg_catalog.pg_index as index
join pg_catalog.pg_class as class on class.oid = index.indexrelid
join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
where namespace.nspname = $1::text
  and class.relname = $2::text
