-- does: Reads the contract's ledger: the numbers of its migrations, and which of them are breaking. Graphile Worker up to
--   0.13 did not say so, and had no such column.
-- locks: none
-- index: none: it reads a few rows, all of them
-- params: none
select id::integer, coalesce((to_jsonb(migrations) ->> 'breaking')::boolean, false) as breaking
from :"schema".migrations
order by id
