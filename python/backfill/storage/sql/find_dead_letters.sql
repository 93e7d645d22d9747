-- does: Gives the ids and places of the dead letters that match, as list_dead_letters has them: newest first, from a place on.
-- locks: none
-- index: backfill_dlq_newest
-- params: $1 ids bigint[], $2 task text, $3 queue text, $4 key text, $5 failed_after timestamptz, $6 failed_before timestamptz,
--   $7 error_type text, $8 fingerprint text, $9 search text, $10 newest bigint,
--   $11 from_failed_at bigint, $12 from_id bigint, $13 wanted integer
-- part: dead_letter_page
select entries.id, entries.place
from entries
order by entries.failed_at desc, entries.id desc
