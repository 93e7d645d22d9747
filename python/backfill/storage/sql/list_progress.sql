-- does: Gives how far jobs have come; those of which nothing is known are left out. The checkpoint is null for a role that may
--   not read it. The time is in Unix microseconds.
-- locks: none
-- index: none: its work is done in functions
-- params: $1 ids bigint[]
select
  seen.job_id, seen.attempt, seen.done, seen.total, seen.note,
  (extract(epoch from seen.progress_at) * 1000000)::bigint as progress_at,
  :"schema".backfill_checkpoint(seen.job_id)::text as checkpoint
from :"schema".backfill_see_progress($1::bigint[]) as seen
