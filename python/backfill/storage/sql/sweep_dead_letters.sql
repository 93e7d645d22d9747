-- does: Moves jobs to the dead letters that other programs have failed for good and that nobody holds, so many at most, from an id
--   on; says how many they were, how many it took, and of which task and whether of a queue each is that is a dead letter now. Those that were cancelled end as cancelled instead; those that were
--   replaced or removed while a worker of the Rust engine ran them are deleted.
-- locks: _private_jobs rows (delete), skip locked: they are looked for again; backfill_dlq rows (insert, update);
--   new backfill_ends rows
-- index: backfill_jobs_exhausted, tasks_pkey, job_queues_pkey1
-- params: $1 wanted integer, $2 after bigint
with exhausted as (
  select jobs.id
  from :"schema"._private_jobs as jobs
  where jobs.locked_at is null
    and jobs.attempts >= jobs.max_attempts
    and jobs.id > $2::bigint
  order by jobs.id
  limit $1::integer
  for update of jobs skip locked
),
gone as (
  delete from :"schema"._private_jobs as jobs
  where jobs.id = any (array(select id from exhausted))
  returning jobs.*
),
superseded as materialized (
  select :"schema".backfill_superseded_there(array(select id from exhausted)) as ids
)
select
  count(*) as taken,
  count(
    case when gone.flags ? 'backfill.cancel' then :"schema".backfill_keep_cancelled(
      gone.id, gone.task_id, gone.job_queue_id, gone.attempts, gone.max_attempts, gone.priority, gone.key, gone.created_at,
      gone.run_at, null, gone.flags, null, null, :"schema".backfill_attempt_records(gone.id, null)
    )
    when gone.id = any (superseded.ids) then null
    else :"schema".backfill_bury(
      gone.id,
      (select identifier from :"schema"._private_tasks where id = gone.task_id),
      (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
      gone.payload, gone.priority, gone.key, gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, gone.last_error, 'given up by another program',
      :"schema".backfill_attempt_records(gone.id, null)
    )
    end
  ) as moved,
  coalesce(
    json_agg(
      json_build_array(
        (select identifier from :"schema"._private_tasks where id = gone.task_id), gone.job_queue_id is not null
      )
    ) filter (
      where not coalesce(gone.flags ? 'backfill.cancel', false)
        and not coalesce(gone.id = any (superseded.ids), false)
    ),
    '[]'
  ) as dead
from gone
cross join superseded
