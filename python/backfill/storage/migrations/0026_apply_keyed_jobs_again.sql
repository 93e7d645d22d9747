-- does: Lets the helper by which add_jobs applies jobs with keys find queues and jobs by their indexes, whatever is believed of them.
-- foundation: yes
-- transaction: yes
-- breaking: no

-- As it was made, but for two conditions: `any (array[...])` in the place of an equality, by which the planner could as well
-- begin with all queues, or with all jobs, and read the dead rows of them all.
create or replace function :"schema".backfill_apply_jobs(specs :"schema".job_spec[], job_key_preserve_run_at boolean)
returns setof :"schema"._private_jobs
language plpgsql
as $function$
#variable_conflict use_column
declare
  v_sequence regclass := pg_get_serial_sequence(pg_typeof(null:::"schema"._private_jobs)::text, 'id');
  v_specs :"schema".job_spec[];
  v_ids bigint[];
  v_places bigint[];
  v_new :"schema"._private_jobs[];
  v_done :"schema"._private_jobs[] := '{}';
  v_done_places bigint[] := '{}';
begin
  -- Ids are drawn in the order given, since serial queues run by them; rows are written in the order of their keys, so
  -- that callers with the same keys in another order never wait for each other in a ring.
  select array_agg(spec order by key, place), array_agg(id order by key, place), array_agg(place order by key, place)
  into v_specs, v_ids, v_places
  from (
    select spec, nextval(v_sequence) as id, coalesce(spec.job_key, '') collate "C" as key, row_number() over () as place
    from unnest(specs) as spec
  ) as given;

  for round in 1..100 loop
    with written as (
      insert into :"schema"._private_jobs as jobs
        (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      overriding system value
      select
        spec.id, queues.id, tasks.id, coalesce(spec.payload, '{}'::json), coalesce(spec.run_at, now()),
        coalesce(spec.max_attempts, 25), spec.job_key, coalesce(spec.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(spec.flags) as item (flag))
      from unnest(v_specs, v_ids) with ordinality
        as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, id, turn)
      join :"schema"._private_tasks as tasks on tasks.identifier = spec.identifier
      left join :"schema"._private_job_queues as queues on queues.queue_name = any (array[spec.queue_name])
      order by spec.turn
      on conflict (key) do update
      set
        job_queue_id = excluded.job_queue_id,
        task_id = excluded.task_id,
        payload = case
          when json_typeof(jobs.payload) = 'array' and json_typeof(excluded.payload) = 'array'
            then (jobs.payload::jsonb || excluded.payload::jsonb)::json
          else excluded.payload
        end,
        run_at = case when job_key_preserve_run_at and jobs.attempts = 0 then jobs.run_at else excluded.run_at end,
        max_attempts = excluded.max_attempts,
        priority = excluded.priority,
        flags = excluded.flags,
        revision = jobs.revision + 1,
        attempts = 0,
        last_error = null,
        updated_at = now()
      where jobs.is_available
      returning jobs.*
    )
    select coalesce(array_agg(written:::"schema"._private_jobs), '{}') into v_new from written;
    v_done := v_done || v_new;
    exit when cardinality(v_new) = cardinality(v_specs);

    if round = 100 then
      raise exception 'jobs of % keys can be neither replaced nor made; row level security may hide them',
        cardinality(v_specs) - cardinality(v_new)
        using errcode = 'insufficient_privilege';
    end if;
    select
      v_done_places || coalesce(array_agg(place order by turn) filter (where not is_open), '{}'),
      array_agg(place order by turn) filter (where is_open), array_agg(spec order by turn) filter (where is_open),
      array_agg(id order by turn) filter (where is_open)
    into v_done_places, v_places, v_specs, v_ids
    from (
      select
        turn, v_places[turn] as place, v_specs[turn] as spec, v_ids[turn] as id,
        v_specs[turn].job_key is not null
          and v_specs[turn].job_key not in (select key from unnest(v_new) where key is not null) as is_open
      from generate_subscripts(v_specs, 1) as turn
    ) as turns;
    update :"schema"._private_jobs as jobs
    set key = null, attempts = jobs.max_attempts, updated_at = now()
    from unnest(v_specs) as spec
    where jobs.key = any (array[spec.job_key])
      and not jobs.is_available;
  end loop;

  return query
  select (done.job).*
  from (select unnest(v_done) as job, unnest(v_done_places || v_places) as place) as done
  order by done.place;
end;
$function$;
