-- does: Makes the helper by which add_jobs applies jobs with keys: to the waiting job of that key, else as a new one.
-- foundation: yes
-- transaction: yes
-- breaking: no

-- Two callers with one key never fail and never lose a job: an insert that meets a key locks its row, whether or not it
-- may replace it. What it may not replace, because the job runs or is out of attempts, loses its key under that lock and
-- is inserted beside it in the next round.
create function :"schema".backfill_apply_jobs(specs :"schema".job_spec[], job_key_preserve_run_at boolean)
returns setof :"schema"._private_jobs
language plpgsql
as $function$
#variable_conflict use_column
declare
  v_sequence regclass := pg_get_serial_sequence(pg_typeof(null:::"schema"._private_jobs)::text, 'id');
  v_ids bigint[];
  v_open bigint[];
  v_new :"schema"._private_jobs[];
  v_done :"schema"._private_jobs[] := '{}';
begin
  -- Ids are drawn in the order given, since serial queues run by them; rows are written in the order of their keys, so
  -- that callers with the same keys in another order never wait for each other in a ring.
  select array_agg(nextval(v_sequence) order by place), array_agg(place order by place)
  into v_ids, v_open
  from generate_subscripts(specs, 1) as place;

  for round in 1..100 loop
    with written as (
      insert into :"schema"._private_jobs as jobs
        (id, job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      overriding system value
      select
        v_ids[spec.place], queues.id, tasks.id, coalesce(spec.payload, '{}'::json), coalesce(spec.run_at, now()),
        coalesce(spec.max_attempts, 25), spec.job_key, coalesce(spec.priority, 0),
        (select jsonb_object_agg(flag, true) from unnest(spec.flags) as item (flag))
      from unnest(specs) with ordinality
        as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place)
      join :"schema"._private_tasks as tasks on tasks.identifier = spec.identifier
      left join :"schema"._private_job_queues as queues on queues.queue_name = spec.queue_name
      where spec.place = any (v_open)
      order by spec.job_key collate "C" nulls first, spec.place
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
    v_open := array(
      select open.place
      from unnest(v_open) as open (place)
      where specs[open.place].job_key is not null
        and specs[open.place].job_key <> all (array(select done.key from unnest(v_new) as done where done.key is not null))
    );
    exit when cardinality(v_open) = 0;

    if round = 100 then
      raise exception 'jobs of the keys % can be neither replaced nor made; row level security may hide them',
        array(select specs[open.place].job_key from unnest(v_open) as open (place))
        using errcode = 'insufficient_privilege';
    end if;
    update :"schema"._private_jobs as jobs
    set key = null, attempts = jobs.max_attempts, updated_at = now()
    from unnest(v_open) as open (place)
    where jobs.key = specs[open.place].job_key
      and not jobs.is_available;
  end loop;

  return query
  select done.*
  from generate_subscripts(specs, 1) as place
  join unnest(v_done) as done on done.key = specs[place].job_key or done.id = v_ids[place]
  order by place;
end;
$function$;
