-- part: failed_attempts
,
holding as materialized (
  select held.id, held.holds as queue_id
  from held
  where held.holds is not null
    and not held.superseded
    and not held.last
),
-- part: freed_or_held_queues
,
gone as (
  delete from :"schema"._private_jobs as jobs
  using held
  where jobs.id = any (array[held.id])
    and (held.superseded or held.last)
  returning
    jobs.*, held.superseded, held.cancelled, held.error, held.final, held.started_at, held.remaining,
    held.replaced, held.claimed_key,
    :"schema".backfill_attempt_records(
      jobs.id,
      :"schema".backfill_attempt_record(
        held.attempt, held.how, $1::text, held.started_at, held.error_type, held.message, held.traceback
      )
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
      coalesce(gone.remaining, gone.payload), gone.priority,
      -- A batch that was replaced goes back into the entry that it was requeued from, which holds items that are done now.
      coalesce(gone.key, (
        select entries.job_key
        from :"schema".backfill_dlq as entries
        where entries.job_key = any (array[gone.claimed_key])
          and coalesce(entries.requeued_job_id = gone.id, false)
      )),
      gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, gone.error,
      case
        when gone.final then 'not to be retried'
        when gone.replaced then 'replaced or removed while it ran'
        else 'all attempts failed'
      end,
      gone.records
    ) as entry
  from gone
  where not gone.superseded
    and not gone.cancelled
),
failed as (
  update :"schema"._private_jobs as jobs
  set
    last_error = held.error,
    payload = coalesce(held.remaining, jobs.payload),
    run_at = case
      when held.delay is null
        then greatest(now(), jobs.run_at) + exp(greatest(least(jobs.attempts, 10), 0)) * interval '1 second'
      else now() + held.delay * interval '1 second'
    end,
    updated_at = now(),
    locked_by = null,
    locked_at = null
  from held
  where jobs.id = any (array[held.id])
    and not held.superseded
    and not held.last
)
