-- does: Draws ids for new jobs from the identity column's own sequence, in order.
-- locks: none
-- index: none: it reads a sequence
-- params: $1 schema text, $2 count integer
select nextval(pg_get_serial_sequence(format('%I._private_jobs', $1::text), 'id'))
from generate_series(1, $2::integer)
