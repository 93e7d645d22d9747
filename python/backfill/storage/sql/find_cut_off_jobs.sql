-- does: Holds jobs that a worker has locked, in order of their ids from one on, so many at most; gives what their next attempt
--   depends on.
-- locks: _private_jobs rows (update), skip locked: they are looked for again
-- index: backfill_jobs_locked
-- params: $1 worker text, $2 after bigint, $3 wanted integer
-- `jobs.id + 0` keeps the planner from reading all jobs in the order of their ids, which looks cheap while the statistics
-- call their table empty.
select
  jobs.id, jobs.attempts, jobs.max_attempts,
  (select identifier from :"schema"._private_tasks where id = jobs.task_id) as task,
  coalesce((select json_agg(flag) from jsonb_object_keys(
    case when jsonb_typeof(jobs.flags) = 'object' then jobs.flags else '{}' end
  ) as flag), '[]')::text as flags
from :"schema"._private_jobs as jobs
where jobs.locked_by = $1::text
  and jobs.id + 0 > $2::bigint
order by jobs.id + 0
limit $3::integer
for update of jobs skip locked
