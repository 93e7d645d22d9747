-- does: Gives since when items are known, and their last runs (Unix microseconds), of those that are known. Others write this
--   table too, so times that Python does not have, such as infinity, become the last or the first that it has.
-- locks: none
-- index: known_crontabs_pkey
-- params: $1 identifiers text[]
select
  known.identifier,
  (extract(epoch from least(greatest(known.known_since, '0002-01-01Z'), '9998-01-01Z')) * 1000000)::bigint as known_since,
  case
    when known.last_execution is not null
    then (extract(epoch from least(greatest(known.last_execution, '0002-01-01Z'), '9998-01-01Z')) * 1000000)::bigint
  end as last_execution
from unnest($1::text[]) as wanted (identifier)
join :"schema"._private_known_crontabs as known on known.identifier = any (array[wanted.identifier])
