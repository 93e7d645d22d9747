-- does: Says whose add_job and add_jobs are: ours, unfinished (ours, but somebody may still be in another program's), replaced
--   (another program has put its own in their place), engine (the Rust engine has), theirs (another program made the schema),
--   or migrating (it was to hold them, and another program is just migrating). Where it holds them, they stay so until the
--   transaction ends.
-- locks: where it holds them, the contract's ledger (share), without waiting
-- index: none: it asks the catalogue by name
-- params: $1 hold boolean
select :"schema".backfill_whose_functions($1::boolean) as whose, current_database()::text as database
