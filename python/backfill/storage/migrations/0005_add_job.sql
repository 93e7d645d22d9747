-- does: makes add_job: one job, or one that takes the place of the job of its key
-- part: contract
-- breaking: no

create function :"schema".add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns :"schema"._private_jobs
language plpgsql
as $body$
#variable_conflict use_column
declare
  runs smallint;
  level smallint;
  marks jsonb;
  held_task integer;
  held_queue integer;
  job :"schema"._private_jobs;
begin
  if job_key is not null and job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode %: expected replace, preserve_run_at or unsafe_dedupe', quote_literal(job_key_mode)
      using errcode = 'GWBKM';
  end if;
  runs := coalesce(add_job.max_attempts, 25);
  level := coalesce(add_job.priority, 0);

  select tasks.id into held_task
  from :"schema"._private_tasks as tasks
  where tasks.identifier = add_job.identifier
  for key share;
  if held_task is null then
    perform :"schema".backfill_hold_tasks(array[add_job.identifier]);
    select tasks.id into strict held_task
    from :"schema"._private_tasks as tasks
    where tasks.identifier = add_job.identifier;
  end if;

  if add_job.queue_name is not null then
    perform :"schema".backfill_hold_queues(array[add_job.queue_name]);
    select queues.id into strict held_queue
    from :"schema"._private_job_queues as queues
    where queues.queue_name = add_job.queue_name;
  end if;

  if add_job.flags is not null then
    marks := (select jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag);
  end if;

  if add_job.job_key is null then
    insert into :"schema"._private_jobs (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
    values (
      held_queue, held_task, coalesce(add_job.payload, '{}'), coalesce(add_job.run_at, now()), runs, level, marks
    )
    returning * into job;
  end if;
  perform pg_notify('jobs:insert', '{"r":' || random() || ',"count":1}');
  return job;
end;
$body$;
