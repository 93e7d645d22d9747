-- does: Makes the functions by which operators remove, end and reschedule jobs, and the helper of unsafe_dedupe.
-- foundation: yes
-- transaction: yes
-- breaking: no

create function :"schema".backfill_dedupe_job(spec :"schema".job_spec)
returns :"schema"._private_jobs
language plpgsql
as $function$
declare
  v_job :"schema"._private_jobs;
begin
  perform :"schema".backfill_hold_names(array[spec.identifier], array_remove(array[spec.queue_name], null));
  insert into :"schema"._private_jobs as jobs
    (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
  select
    (select queues.id from :"schema"._private_job_queues as queues where queues.queue_name = spec.queue_name),
    tasks.id, coalesce(spec.payload, '{}'::json), coalesce(spec.run_at, now()), coalesce(spec.max_attempts, 25),
    spec.job_key, coalesce(spec.priority, 0),
    (select jsonb_object_agg(flag, true) from unnest(spec.flags) as item (flag))
  from :"schema"._private_tasks as tasks
  where tasks.identifier = spec.identifier
  on conflict (key) do update set revision = jobs.revision + 1, updated_at = now()
  returning jobs.* into v_job;
  if v_job.revision = 0 then
    perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":1}');
  end if;
  return v_job;
end;
$function$;

create function :"schema".remove_job(job_key text)
returns :"schema"._private_jobs
language plpgsql
strict
as $function$
declare
  v_job :"schema"._private_jobs;
begin
  delete from :"schema"._private_jobs as jobs
  where jobs.key = remove_job.job_key
    and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
  returning * into v_job;
  if found then
    perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":-1}');
    return v_job;
  end if;
  update :"schema"._private_jobs as jobs
  set key = null, attempts = jobs.max_attempts, updated_at = now()
  where jobs.key = remove_job.job_key
  returning * into v_job;
  return v_job;
end;
$function$;

create function :"schema".complete_jobs(job_ids bigint[])
returns setof :"schema"._private_jobs
language sql
as $function$
  delete from :"schema"._private_jobs as jobs
  where jobs.id = any (job_ids)
    and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
  returning *
$function$;

create function :"schema".permanently_fail_jobs(job_ids bigint[], error_message text default null)
returns setof :"schema"._private_jobs
language sql
as $function$
  update :"schema"._private_jobs as jobs
  set
    last_error = coalesce(error_message, 'Manually marked as failed'),
    attempts = jobs.max_attempts,
    updated_at = now()
  where jobs.id = any (job_ids)
    and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
  returning *
$function$;
