-- does: Gives since when items are known, and their last runs (Unix microseconds), of those that are known.
-- locks: none
-- index: known_crontabs_pkey
-- params: $1 identifiers text[]
select
  known.identifier, (extract(epoch from known.known_since) * 1000000)::bigint as known_since,
  (extract(epoch from known.last_execution) * 1000000)::bigint as last_execution
from unnest($1::text[]) as wanted (identifier)
join :"schema"._private_known_crontabs as known on known.identifier = any (array[wanted.identifier])
