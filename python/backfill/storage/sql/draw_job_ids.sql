-- does: Draws ids for new jobs from the identity column's own sequence, and gives them back as one array, in order.
-- locks: none
-- index: none: it reads a sequence
-- params: $1 schema text, $2 count integer
with sequence as materialized (
  select pg_get_serial_sequence(format('%I._private_jobs', $1::text), 'id')::regclass as name
)
select array_agg(nextval(sequence.name)) as ids
from sequence
cross join generate_series(1, $2::integer)
