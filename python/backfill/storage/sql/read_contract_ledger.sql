-- does: Reads the contract's ledger: the numbers of its migrations, and which of them are breaking.
-- locks: none
-- index: none: it reads a few rows, all of them
-- params: none
select id, coalesce(breaking, false)
from :"schema".migrations
order by id
