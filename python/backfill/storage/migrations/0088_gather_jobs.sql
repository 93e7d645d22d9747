-- does: Makes backfill_gather_jobs, by which a client adds the jobs of several calls together: with keys and without, in
--   one transaction, with one notification or none.
-- foundation: no
-- transaction: yes
-- breaking: no

-- All arrays are of one length; `flags` has the text of a JSON object, or null, for each job. No key may come twice, and all
-- jobs with keys are of one mode. `patience` is for how long a row is waited for that another transaction holds (such as
-- 200ms); null for as long as the session says. `tell` is whether the workers are notified.
--
-- Gives back the jobs as they are now, those without keys in the order given. Nothing is done, and no row given back, where
-- a task or a serial queue is missing: to make it here would hold it while a key is waited for.
create function :"schema".backfill_gather_jobs(
  identifiers text[], queue_names text[], payloads text[], priorities integer[], run_ats timestamptz[], delays interval[],
  max_attempts integer[], flags text[], job_keys text[], job_key_mode text, tell boolean, patience text
) returns setof :"schema"._private_jobs
language plpgsql
as $body$
declare
  tasks_wanted text[] := array(select distinct name from unnest(identifiers) as name);
  queues_wanted text[] := array(select distinct name from unnest(queue_names) as name where name is not null);
  held integer;
  told boolean := not tell;
  specs :"schema".job_spec[];
begin
  if patience is not null then
    perform set_config('lock_timeout', patience, true);
  end if;
  perform from :"schema"._private_tasks as tasks where tasks.identifier = any (tasks_wanted) for key share;
  get diagnostics held = row_count;
  if held < cardinality(tasks_wanted) then
    return;
  end if;
  if queues_wanted <> '{}' then
    perform from :"schema"._private_job_queues as queues where queues.queue_name = any (queues_wanted) for key share;
    get diagnostics held = row_count;
    if held < cardinality(queues_wanted) then
      return;
    end if;
  end if;

  if job_keys is null or array_position(job_keys, null) is not null or job_key_mode = 'unsafe_dedupe' then
    return query
    insert into :"schema"._private_jobs as jobs
      (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags, key)
    select
      tasks.id, queues.id, given.payload::json,
      coalesce(given.due, clock_timestamp() + coalesce(given.delay, '0')), given.most, given.priority,
      given.flags::jsonb, given.key
    from unnest(identifiers, queue_names, payloads, priorities, run_ats, delays, max_attempts, flags, job_keys)
      with ordinality as given (task, queue, payload, priority, due, delay, most, flags, key, place)
    join :"schema"._private_tasks as tasks on tasks.identifier = given.task
    left join :"schema"._private_job_queues as queues on queues.queue_name = any (array[given.queue])
    where given.key is null or job_key_mode = 'unsafe_dedupe'
    order by given.key collate "C", given.place
    on conflict (key) do update set revision = jobs.revision + 1, updated_at = now()
    returning jobs.*;
  end if;

  if job_keys is not null and job_key_mode <> 'unsafe_dedupe' then
    specs := array(
      select cast(
        row(
          given.task, given.payload::json, given.queue,
          coalesce(given.due, clock_timestamp() + coalesce(given.delay, '0')), given.most, given.key, given.priority,
          (select array_agg(flag) from jsonb_object_keys(given.flags::jsonb) as flag)
        ) as :"schema".job_spec
      )
      from unnest(identifiers, queue_names, payloads, priorities, run_ats, delays, max_attempts, flags, job_keys)
        as given (task, queue, payload, priority, due, delay, most, flags, key)
      where given.key is not null
      order by given.key collate "C"
    );
    -- Where another program has replaced add_jobs, its own is called, which notifies by itself.
    if exists (
      select
      from pg_proc as functions
      join pg_type as types on types.oid = pg_typeof(null:::"schema".job_spec) and types.typnamespace = functions.pronamespace
      where functions.proname = 'add_jobs'
        and functions.prosrc like '%backfill_apply_jobs%'
    ) then
      return query select * from :"schema".backfill_apply_jobs(specs, job_key_mode = 'preserve_run_at');
    else
      return query select * from :"schema".add_jobs(specs, job_key_mode = 'preserve_run_at');
      told := true;
    end if;
  end if;
  if not told then
    perform pg_notify('jobs:insert', json_build_object('r', random(), 'count', cardinality(identifiers))::text);
  end if;
end;
$body$;
