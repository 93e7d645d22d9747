-- does: Reads our ledger: the numbers of our migrations, which are breaking, and which another program stood in for.
-- locks: none
-- index: none: it reads a few rows, all of them
-- params: none
select id, breaking, skipped
from :"schema".backfill_migrations
order by id
