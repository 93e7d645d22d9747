-- does: Gives what code declares: the lines of items by their identifiers (JSON), for each digest that there is.
-- locks: none
-- index: backfill_crontabs_pkey
-- params: $1 digests text[]
select crontabs.digest, crontabs.items::text as items
from :"schema".backfill_crontabs as crontabs
where crontabs.digest = any ($1::text[])
