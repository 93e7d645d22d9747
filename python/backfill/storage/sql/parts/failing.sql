-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with ended as (
  select *
  from unnest(
    $2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[],
    $6::smallint[], $7::boolean[], $8::double precision[], $9::text[], $10::boolean[]
  ) as ended (id, locked_at, queue_id, queue_locked_at, attempts, keyed, delay, error, final)
),
held as materialized (
  select
    jobs.id, jobs.locked_at, ended.delay, ended.error, ended.final,
    coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled,
    (jobs.attempts <> ended.attempts or (ended.keyed and jobs.key is null))
      and not coalesce(jobs.flags ? 'backfill.cancel', false) as superseded,
    ended.final or jobs.attempts >= jobs.max_attempts or coalesce(jobs.flags ? 'backfill.cancel', false) as last,
    case when jobs.flags ? 'backfill.block_on_retry' and jobs.job_queue_id = ended.queue_id then ended.queue_id end as holds
  from ended
  join :"schema"._private_jobs as jobs on jobs.id = any (array[ended.id])
  where coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
  for update of jobs
),
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
  returning jobs.*, held.superseded, held.cancelled, held.error, held.final
),
buried as (
  select
    gone.id,
    :"schema".backfill_bury(
      gone.id,
      (select identifier from :"schema"._private_tasks where id = gone.task_id),
      (select queue_name from :"schema"._private_job_queues where id = gone.job_queue_id),
      gone.payload, gone.priority, gone.key, gone.attempts, gone.max_attempts,
      gone.flags, gone.created_at, gone.run_at, gone.error,
      case when gone.final then 'not to be retried' else 'all attempts failed' end
    ) as entry
  from gone
  where not gone.superseded
    and not gone.cancelled
),
failed as (
  update :"schema"._private_jobs as jobs
  set
    last_error = held.error,
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
