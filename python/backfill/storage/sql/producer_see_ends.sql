-- does: Gives the ends of some jobs for a producer, as find_ends does.
-- locks: none
-- index: none: its work is done in a function
-- params: $1 ids bigint[]
select
  ends.id, ends.waits, ends.job_id, ends.task_identifier, ends.how, ends.attempts, ends.max_attempts, ends.priority,
  ends.queue_name, ends.job_key, ends.created_at, ends.run_at, ends.started_at, ends.ended_at, ends.expires_at,
  ends.worker_id, ends.error, ends.result
from :"schema".backfill_see_ends($1::bigint[]) as ends
