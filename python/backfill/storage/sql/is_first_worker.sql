-- does: Says whether a worker is the live one with the smallest id: what one of the fleet is to do, it does.
-- locks: none
-- index: none: the table has a row a worker
-- params: $1 worker text
select coalesce(min(id) = $1::text, false) as first
from :"schema".backfill_workers
where heartbeat_at > now() - dead_after
  and given_up_at is null
