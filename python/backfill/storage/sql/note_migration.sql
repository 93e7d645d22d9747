-- does: Notes a migration in our ledger.
-- locks: the new row
-- index: none: it only inserts
-- params: $1 id integer, $2 name text, $3 breaking boolean, $4 skipped boolean
insert into :"schema".backfill_migrations (id, name, breaking, skipped)
values ($1::integer, $2::text, $3::boolean, $4::boolean)
