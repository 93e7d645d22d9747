-- does: Changes when and how jobs run that wait, by their ids or keys, for a producer; what is null stays; gives back their
--   rows.
-- locks: the _private_jobs rows (update)
-- index: none: its work is done in a function
-- params: $1 job_ids bigint[], $2 run_at timestamptz, $3 delay interval, $4 priority integer, $5 attempts integer,
--   $6 max_attempts integer, $7 job_keys text[]
select *
from :"schema".backfill_reschedule_jobs(
  $1::bigint[],
  $7::text[],
  coalesce($2::timestamptz, clock_timestamp() + $3::interval),
  $4::integer,
  $5::integer,
  $6::integer
)
