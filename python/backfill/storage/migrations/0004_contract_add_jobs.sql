-- does: Makes add_jobs and add_job, by which every producer adds jobs.
-- foundation: yes
-- transaction: yes
-- breaking: no

create function :"schema".add_jobs(specs :"schema".job_spec[], job_key_preserve_run_at boolean default false)
returns setof :"schema"._private_jobs
language plpgsql
as $function$
begin
  if coalesce(cardinality(specs), 0) = 0 then
    return;
  end if;
  perform :"schema".backfill_hold_names(
    array(select distinct spec.identifier from unnest(specs) as spec),
    array(select distinct spec.queue_name from unnest(specs) as spec where spec.queue_name is not null)
  );
  perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || cardinality(specs)::text || '}');

  if not exists (select from unnest(specs) as spec where spec.job_key is not null) then
    return query
    insert into :"schema"._private_jobs (job_queue_id, task_id, payload, run_at, max_attempts, priority, flags)
    select
      queues.id, tasks.id, coalesce(spec.payload, '{}'::json), coalesce(spec.run_at, now()),
      coalesce(spec.max_attempts, 25), coalesce(spec.priority, 0),
      (select jsonb_object_agg(flag, true) from unnest(spec.flags) as item (flag))
    from unnest(specs) with ordinality
      as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place)
    join :"schema"._private_tasks as tasks on tasks.identifier = spec.identifier
    left join :"schema"._private_job_queues as queues on queues.queue_name = spec.queue_name
    order by spec.place
    returning *;
    return;
  elsif cardinality(specs) = 1 then
    return query
    select * from :"schema".backfill_apply_jobs(specs, coalesce(job_key_preserve_run_at, false));
    return;
  end if;

  -- Producers lock jobs in the order of their keys; workers, who end many jobs in one statement, know no keys. So a worker
  -- and a producer with many keys may wait for each other in a ring; the producer then lets go of all and tries again.
  for round in 1..20 loop
    begin
      return query
      select * from :"schema".backfill_apply_jobs(specs, coalesce(job_key_preserve_run_at, false));
      return;
    exception when deadlock_detected then
      if round = 20 then
        raise;
      end if;
    end;
  end loop;
end;
$function$;

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
as $function$
declare
  v_job :"schema"._private_jobs;
begin
  if job_key is null or job_key_mode is null or job_key_mode in ('replace', 'preserve_run_at') then
    select * into v_job
    from :"schema".add_jobs(
      array[row(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts::smallint,
        add_job.job_key, add_job.priority::smallint, add_job.flags
      ):::"schema".job_spec],
      add_job.job_key_mode = 'preserve_run_at'
    );
    return v_job;
  elsif job_key_mode = 'unsafe_dedupe' then
    return :"schema".backfill_dedupe_job(
      row(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts::smallint,
        add_job.job_key, add_job.priority::smallint, add_job.flags
      ):::"schema".job_spec
    );
  end if;
  raise exception 'job_key_mode is %, expected replace, preserve_run_at or unsafe_dedupe', job_key_mode
    using errcode = 'GWBKM';
end;
$function$;
