-- does: Adds a job of an item apart from its runs, and gives its id.
-- locks: what add_job locks
-- index: none: its work is done in a function
-- params: $1 identifier text, $2 task text, $3 payload json, $4 queue_name text, $5 run_at timestamptz, $6 max_attempts integer,
--   $7 job_key text, $8 priority integer, $9 flags text[], $10 job_key_mode text
select :"schema".backfill_trigger_schedule(
  $1::text, $2::text, $3::json, $4::text, $5::timestamptz, $6::integer, $7::text, $8::integer, $9::text[], $10::text
) as job_id
