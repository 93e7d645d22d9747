-- does: Finds the workers that run, or ran, in a process, with their places.
-- locks: none
-- index: none: the table has a row a worker
-- params: $1 place jsonb (host, boot, namespaces, pid and start of the process)
select id, place::text as place
from :"schema".backfill_workers
where place @> $1::jsonb
order by id
