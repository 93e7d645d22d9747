-- does: Registers an item with all schedulers, unless it is known.
-- locks: its _private_known_crontabs row (insert)
-- index: none: it only inserts
-- params: $1 identifier text, $2 known_since timestamptz
insert into :"schema"._private_known_crontabs (identifier, known_since)
values ($1::text, $2::timestamptz)
on conflict do nothing
