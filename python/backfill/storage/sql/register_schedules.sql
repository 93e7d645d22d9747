-- does: Registers items with all schedulers, unless they are known; none of them where another transaction is registering one of
--   them at the moment.
-- locks: _private_known_crontabs rows (insert), for which it waits 50 ms at most
-- index: none: its work is done in a function
-- params: $1 identifiers text[], $2 known_since timestamptz
select :"schema".backfill_register_schedules($1::text[], $2::timestamptz) as registered
