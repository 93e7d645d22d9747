-- does: Writes a job among the dead letters by hand; its own row is left where it is. Gives back the entry's id.
-- locks: the backfill_dlq row of its key or of the entry that it was requeued from (insert, update)
-- index: none: its work is done in a function
-- params: $1 job_id bigint, $2 task text, $3 queue text, $4 payload json, $5 priority integer, $6 key text, $7 attempts integer,
--   $8 max_attempts integer, $9 flags jsonb, $10 created_at timestamptz, $11 run_at timestamptz, $12 error text, $13 reason text
select
  :"schema".backfill_bury(
    $1::bigint, $2::text, $3::text, $4::json, $5::integer, $6::text, $7::integer, $8::integer, $9::jsonb, $10::timestamptz,
    $11::timestamptz, $12::text, $13::text, :"schema".backfill_attempt_records($1::bigint, null)
  ) as entry
