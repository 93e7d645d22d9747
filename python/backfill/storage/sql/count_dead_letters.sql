-- does: Counts the dead letters that match, by the filters of list_dead_letters.
-- locks: none
-- index: none: it counts all that there are where no filter says otherwise
-- params: $1 ids bigint[], $2 task text, $3 queue text, $4 key text, $5 failed_after timestamptz, $6 failed_before timestamptz,
--   $7 error_type text, $8 fingerprint text, $9 search text, $10 newest bigint
with entries as (
  select entries.last_error
  from :"schema".backfill_dlq as entries
  where
    -- part: dead_letter_filter
  order by entries.failed_at desc, entries.id desc
  limit $10::bigint
)
select count(*) as total
from entries
where $9::text is null
  or strpos(lower(entries.last_error #>> '{}'), lower($9::text)) > 0
