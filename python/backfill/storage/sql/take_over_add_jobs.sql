-- does: Puts this package's add_jobs in the place of another program's, as migrations 4 and 28 make it.
-- locks: none but the function's row
-- index: none: it only makes
-- params: none
create or replace function :"schema".add_jobs(specs :"schema".job_spec[], job_key_preserve_run_at boolean default false)
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
    left join :"schema"._private_job_queues as queues on queues.queue_name = any (array[spec.queue_name])
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
$function$
