-- does: Adds one job whose key then stays reserved for a while, unless it is reserved already. Gives back the job
--   (its id and key alone, if it is not in the queue any more), until when the key is reserved, whether it was
--   reserved already, and whether the job is in the queue. No row if it lost a race for the key.
-- locks: the backfill_reservations row of that key (insert, update), then the _private_jobs row of that key (update), its
--   _private_tasks and _private_job_queues rows for key share
-- index: none: its work is done in a function
-- params: $1 identifier text, $2 payload json, $3 queue_name text, $4 run_at timestamptz, $5 delay interval,
--   $6 max_attempts integer, $7 job_key text, $8 priority integer, $9 flags text[], $10 job_key_mode text,
--   $11 unique_for interval, $12 tell boolean
select
  (done.job).id as id, (done.job).job_queue_id as job_queue_id, coalesce((done.job).task_id, 0) as task_id,
  coalesce((done.job).payload, 'null') as payload, coalesce((done.job).priority, 0::smallint) as priority,
  coalesce((done.job).run_at, now()) as run_at, coalesce((done.job).attempts, 0::smallint) as attempts,
  coalesce((done.job).max_attempts, 1::smallint) as max_attempts, (done.job).last_error as last_error,
  coalesce((done.job).created_at, now()) as created_at, coalesce((done.job).updated_at, now()) as updated_at,
  (done.job).key as key, (done.job).locked_at as locked_at, (done.job).locked_by as locked_by,
  coalesce((done.job).revision, 0) as revision, (done.job).flags as flags, names.task_identifier as task_identifier,
  names.queue_name as queue_name, done.until as reserved_until, done.kept as kept, done.in_queue as in_queue
from :"schema".backfill_add_unique(
  $1::text,
  $2::json,
  $3::text,
  coalesce($4::timestamptz, clock_timestamp() + coalesce($5::interval, '0')),
  $6::integer,
  $7::text,
  $8::integer,
  $9::text[],
  $10::text,
  $11::interval,
  $12::boolean
) as done
left join lateral :"schema".backfill_see_names((done.job).task_id, (done.job).job_queue_id) as names on true
