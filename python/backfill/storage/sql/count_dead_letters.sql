-- does: Counts the dead letters that match, by the filters of list_dead_letters.
-- locks: none
-- index: none: it counts all that there are where no filter says otherwise
-- params: $1 ids bigint[], $2 task text, $3 queue text, $4 key text, $5 failed_after timestamptz, $6 failed_before timestamptz,
--   $7 error_type text, $8 fingerprint text, $9 search text, $10 newest bigint
with entries as (
  select entries.last_error
  from :"schema".backfill_dlq as entries
  where
    ($1::bigint[] is null or entries.id = any($1::bigint[]))
    and ($2::text is null or entries.task_identifier = $2::text)
    and ($3::text is null or entries.queue_name = $3::text)
    and ($4::text is null or entries.job_key = $4::text)
    and ($5::timestamptz is null or entries.failed_at >= $5::timestamptz)
    and ($6::timestamptz is null or entries.failed_at <= $6::timestamptz)
    and ($7::text is null or entries.error_type = $7::text)
    and ($8::text is null or entries.fingerprint = $8::text)
  order by entries.failed_at desc, entries.id desc
  limit $10::bigint
)
select count(*)
from entries
where $9::text is null
  or strpos(lower(entries.last_error #>> '{}'), lower($9::text)) > 0
