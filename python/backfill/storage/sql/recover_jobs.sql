-- does: Unlocks jobs whose worker died, and their queues; a queue is held for its job's next attempt where the job's flags ask
--   for it. The attempt counts: after a first one a job is due as it was, after others when $3 says (seconds; null: by the
--   contract), after the last it is among the dead letters, with an end where $4 says for how long. One that was cancelled
--   ends as cancelled. One that was replaced or removed while it ran is deleted; where that is not sure, and where a batch was not
--   surely removed, it is a dead letter that says so. Gives the jobs' ids, which of them are dead letters now, and which were replaced or removed.
-- locks: _private_jobs rows (update, delete), _private_job_queues rows (update), backfill_dlq rows (insert, update),
--   backfill_attempts rows (insert, delete), new backfill_ends rows
-- index: jobs_pkey1, job_queues_pkey1, tasks_pkey, backfill_attempts_pkey
-- params: $1 worker text, $2 ids bigint[], $3 delays double precision[], $4 keeps double precision[], $5 error text,
--   $6 batches boolean[] (whether the job is a batch: the job that took its key does not have its items; null: if it looks so)
with
-- part: busy_queues
,
-- part: cut_off
,
-- part: recovered_queues
,
gone as (
  delete from :"schema"._private_jobs as jobs
  using cut_off join held on held.id = cut_off.id
  where jobs.id = any (array[cut_off.id])
    and (cut_off.superseded or cut_off.last)
  returning
    jobs.*, cut_off.superseded, cut_off.doubtful, cut_off.cancelled, cut_off.keep,
    :"schema".backfill_attempt_records(
      jobs.id,
      :"schema".backfill_attempt_record(held.attempt, held.how, $1::text, held.started_at, null, held.message, null)
    ) as records
),
-- part: recorded_attempts
,
buried as (
  select
    gone.id,
    :"schema".backfill_bury(
      gone.id,
      (select identifier from :"schema"._private_tasks where id = gone.task_id),
      (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
      gone.payload, gone.priority, gone.key, gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, $5::text,
      'its worker died' || case when gone.doubtful then '; the job may have been replaced or removed while it ran' else '' end,
      gone.records
    ) as entry
  from gone
  where not gone.superseded
    and not gone.cancelled
),
-- part: recovered_ends
-- part: telling
, unlocked as (
  update :"schema"._private_jobs as jobs
  set
    last_error = $5::text,
    run_at = case
      when jobs.attempts <= 1 then jobs.run_at
      when cut_off.delay is null then greatest(now(), jobs.run_at) + exp(greatest(least(jobs.attempts, 10), 0)) * interval '1 second'
      else now() + cut_off.delay * interval '1 second'
    end,
    updated_at = now(), locked_by = null, locked_at = null
  from cut_off
  where jobs.id = any (array[cut_off.id])
    and not cut_off.superseded
    and not cut_off.last
)
select cut_off.id, buried.entry is not null as buried, cut_off.superseded, (select count(*) from told)
from cut_off
left join buried on buried.id = cut_off.id
