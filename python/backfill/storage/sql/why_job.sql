-- does: Gives what holds a job back, apart from its task's limit: its own row, who has it locked, its serial queue and who has
--   that, the pauses and the breaker that concern it (JSON), how many live workers know its task, and how many of these take
--   jobs with its flags. Of a job that is gone it gives its end and its dead letter. There is always one row. Times
--   are Unix microseconds, null where they are infinite.
-- locks: none
-- index: jobs_pkey1, tasks_pkey, job_queues_pkey1, backfill_jobs_serial_head, backfill_jobs_locked, backfill_workers_pkey,
--   backfill_ends_job, backfill_dlq_job
-- params: $1 id bigint
with job as materialized (
  select
    jobs.id, jobs.job_queue_id, jobs.run_at, jobs.attempts, jobs.max_attempts, jobs.locked_at, jobs.locked_by, jobs.flags,
    (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = any (array[jobs.task_id])) as task
  from :"schema"._private_jobs as jobs
  where jobs.id = any (array[$1::bigint])
),
-- part: why_queue
,
-- part: why_workers
select
  job.id, job.task, queue.queue_name, job.attempts, job.max_attempts, job.locked_by,
  (extract(epoch from now()) * 1000000)::bigint as now_micros,
  case when isfinite(job.run_at) then (extract(epoch from job.run_at) * 1000000)::numeric(30) end as run_at,
  job.run_at > now() as is_early,
  case when isfinite(job.locked_at) then (extract(epoch from job.locked_at) * 1000000)::numeric(30) end as locked_at,
  job.locked_at is not null as is_locked,
  job.flags ? 'backfill.cancel' as is_cancelled,
  :"schema".backfill_limit_value(job.flags) as limit_value,
  holder.host || ':' || holder.pid as holder_place, holder.heartbeat_at > now() - holder.dead_after as holder_lives,
  queue.locked_by as queue_holder, queue.holder_place as queue_place, queue.running_job as queue_job, queue.first_job,
  case when isfinite(queue.locked_at) then (extract(epoch from queue.locked_at) * 1000000)::numeric(30) end as queue_since,
  knowers.knowing, knowers.taking,
  (
    select json_agg(json_build_object(
        'id', control.version, 'kind', control.kind, 'subject', control.subject, 'said', control.said::text,
        'by', coalesce(control.said_by, ''), 'reason', coalesce(control.reason, ''),
        'said_at', (extract(epoch from control.said_at) * 1000000)::bigint
      ) order by control.version)
    from :"schema".backfill_control as control
    where control.kind = any (array['pause', 'breaker', 'limit'])
      and control.subject = any (array['everything', 'task:' || job.task, 'queue:' || queue.queue_name])
  ) as controls,
  ended.how, (extract(epoch from ended.ended_at) * 1000000)::bigint as ended_at,
  letter.id as letter, (extract(epoch from letter.failed_at) * 1000000)::bigint as failed_at
from knowers
left join job on true
left join queue on true
left join :"schema".backfill_workers as holder on holder.id = any (array[job.locked_by])
left join lateral (
  select ends.how, ends.ended_at
  from :"schema".backfill_ends as ends
  where ends.job_id = any (array[$1::bigint])
    and ends.expires_at > now()
    and job.id is null
  order by ends.job_id
  limit 1
) as ended on true
left join lateral (
  select entries.id, entries.failed_at
  from :"schema".backfill_dlq as entries
  where entries.original_job_id = any (array[$1::bigint])
    and job.id is null
  order by entries.original_job_id
  limit 1
) as letter on true
