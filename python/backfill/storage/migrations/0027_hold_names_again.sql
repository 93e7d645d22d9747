-- does: Lets the helper by which add_job and add_jobs find tasks and queues find the missing ones by index, whatever is
--   believed of the tables.
-- foundation: yes
-- transaction: yes
-- breaking: no

-- As it was made, but that the known names are looked up by themselves. In a join the planner could as well read all
-- queues, those too that are deleted and not vacuumed.
create or replace function :"schema".backfill_hold_names(identifiers text[], queue_names text[])
returns void
language plpgsql
as $function$
declare
  v_held integer;
begin
  if array_position(identifiers, null) is not null then
    raise exception 'a job without an identifier' using errcode = 'not_null_violation';
  end if;
  for round in 1..100 loop
    perform from :"schema"._private_tasks as tasks
    where tasks.identifier = any (identifiers)
    for key share;
    get diagnostics v_held = row_count;
    exit when v_held = cardinality(identifiers);

    if round = 100 then
      raise exception 'tasks % can be neither seen nor made; row level security may hide them', identifiers
        using errcode = 'insufficient_privilege';
    end if;
    insert into :"schema"._private_tasks (identifier)
    select name
    from unnest(identifiers) as name
    where name not in (
      select tasks.identifier
      from :"schema"._private_tasks as tasks
      where tasks.identifier = any (identifiers)
    )
    order by name
    on conflict do nothing;
  end loop;

  if coalesce(cardinality(queue_names), 0) = 0 then
    return;
  end if;
  for round in 1..100 loop
    perform from :"schema"._private_job_queues as queues
    where queues.queue_name = any (queue_names)
    for key share;
    get diagnostics v_held = row_count;
    exit when v_held = cardinality(queue_names);

    if round = 100 then
      raise exception 'queues % can be neither seen nor made; row level security may hide them', queue_names
        using errcode = 'insufficient_privilege';
    end if;
    insert into :"schema"._private_job_queues (queue_name)
    select name
    from unnest(queue_names) as name
    where name not in (
      select queues.queue_name
      from :"schema"._private_job_queues as queues
      where queues.queue_name = any (queue_names)
    )
    order by name
    on conflict do nothing;
  end loop;
end;
$function$;
