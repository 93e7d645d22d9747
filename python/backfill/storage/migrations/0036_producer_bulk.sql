-- does: Makes the functions by which a producer adds many jobs in one statement without any right on a table: those without
--   keys, and those with keys. All arrays are of one length; `flags` has an array's text, or null, for each job. Where another
--   element is null, the job has what add_job gives by default.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Queues are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all queues,
-- and read those too that are deleted and not vacuumed.

-- Adds jobs without keys, in order, and gives back their ids, in order.
create function :"schema".backfill_add_keyless_jobs(
  identifiers text[], queue_names text[], payloads text[], priorities integer[], run_ats timestamptz[],
  max_attempts integer[], flags text[]
) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform :"schema".backfill_check_lengths(
    cardinality(identifiers), cardinality(queue_names), cardinality(payloads), cardinality(priorities),
    cardinality(run_ats), cardinality(max_attempts), cardinality(flags)
  );
  perform :"schema".backfill_check_job(task, queue, most, null, priority, flag_list::text[])
  from unnest(identifiers, queue_names, max_attempts, priorities, flags) as specs (task, queue, most, priority, flag_list);
  perform :"schema".backfill_have_names(identifiers, queue_names);
  return query
  with added as (
    insert into :"schema"._private_jobs as jobs (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags)
    select
      tasks.id, queues.id, coalesce(specs.payload::json, '{}'), coalesce(specs.priority, 0),
      coalesce(specs.due, now()), coalesce(specs.most, 25),
      (select jsonb_object_agg(flag, true) from unnest(specs.flag_list::text[]) as flag)
    from unnest(identifiers, queue_names, payloads, priorities, run_ats, max_attempts, flags) with ordinality
      as specs (task, queue, payload, priority, due, most, flag_list, place)
    join :"schema"._private_tasks as tasks on tasks.identifier = specs.task
    left join :"schema"._private_job_queues as queues on queues.queue_name = any (array[specs.queue])
    order by specs.place
    returning jobs.id
  )
  select added.id from added order by added.id;
  perform pg_notify('jobs:insert', json_build_object('r', random(), 'count', cardinality(identifiers))::text);
end;
$body$;

-- Adds jobs with keys, or applies them to the jobs of their keys, all in one mode; no key may come twice. Gives back the
-- ids by key.
create function :"schema".backfill_add_keyed_jobs(
  identifiers text[], queue_names text[], payloads text[], priorities integer[], run_ats timestamptz[],
  max_attempts integer[], flags text[], job_keys text[], job_key_mode text
) returns table (added_id bigint, added_key text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform :"schema".backfill_check_lengths(
    cardinality(identifiers), cardinality(queue_names), cardinality(payloads), cardinality(priorities),
    cardinality(run_ats), cardinality(max_attempts), cardinality(flags), cardinality(job_keys)
  );
  perform :"schema".backfill_check_job(task, queue, most, coalesce(key, ''), priority, flag_list::text[])
  from unnest(identifiers, queue_names, max_attempts, job_keys, priorities, flags)
    as specs (task, queue, most, key, priority, flag_list);
  if job_key_mode in ('replace', 'preserve_run_at') then
    return query
    select jobs.id, jobs.key
    from :"schema".add_jobs(
      array(
        select cast(row(task, payload::json, queue, due, most, key, priority, flag_list::text[]) as :"schema".job_spec)
        from unnest(identifiers, payloads, queue_names, run_ats, max_attempts, job_keys, priorities, flags)
          as specs (task, payload, queue, due, most, key, priority, flag_list)
        order by key collate "C"
      ),
      job_key_mode = 'preserve_run_at'
    ) as jobs;
    return;
  elsif job_key_mode is distinct from 'unsafe_dedupe' then
    raise exception 'job_key_mode = %: expected replace, preserve_run_at or unsafe_dedupe', job_key_mode
      using errcode = 'invalid_parameter_value';
  end if;
  perform :"schema".backfill_have_names(identifiers, queue_names);
  return query
  insert into :"schema"._private_jobs as jobs
    (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags, key)
  select
    tasks.id, queues.id, coalesce(specs.payload::json, '{}'), coalesce(specs.priority, 0),
    coalesce(specs.due, now()), coalesce(specs.most, 25),
    (select jsonb_object_agg(flag, true) from unnest(specs.flag_list::text[]) as flag), specs.key
  from unnest(identifiers, queue_names, payloads, priorities, run_ats, max_attempts, flags, job_keys)
    as specs (task, queue, payload, priority, due, most, flag_list, key)
  join :"schema"._private_tasks as tasks on tasks.identifier = specs.task
  left join :"schema"._private_job_queues as queues on queues.queue_name = any (array[specs.queue])
  order by specs.key collate "C"
  on conflict (key) do update set revision = jobs.revision + 1, updated_at = now()
  returning jobs.id, jobs.key;
  perform pg_notify('jobs:insert', json_build_object('r', random(), 'count', cardinality(identifiers))::text);
end;
$body$;
