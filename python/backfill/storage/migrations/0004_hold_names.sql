-- does: makes the functions that find or make the rows of tasks and queues, and keep them from being deleted
-- part: contract
-- breaking: no

-- Rows that are there are locked in the order of their ids and missing ones made in the order of their names, so that
-- two producers never wait for each other in a ring. Nothing is drawn from the identity column for a name that exists:
-- an "on conflict do nothing" would, at every call, and integers end. A row may be deleted between its making and its
-- lock (unused ones are collected): then it is made again.
create function :"schema".backfill_hold_tasks(identifiers text[])
returns void
language plpgsql
as $body$
declare
  wanted constant text[] := array(select distinct name from unnest(identifiers) as name);
  held bigint;
begin
  for round in 1..100 loop
    perform from :"schema"._private_tasks as tasks
    where tasks.identifier = any (wanted)
    order by tasks.id
    for key share;
    get diagnostics held = row_count;
    if held = cardinality(wanted) then
      return;
    end if;
    insert into :"schema"._private_tasks (identifier)
    select name
    from unnest(wanted) as name
    where not exists (select from :"schema"._private_tasks as tasks where tasks.identifier = name)
    order by name
    on conflict do nothing;
  end loop;
  raise exception 'tasks %: rows that can be neither seen nor made; row level security may hide them', wanted
    using errcode = 'insufficient_privilege';
end;
$body$;

-- A null stands for no queue.
create function :"schema".backfill_hold_queues(queue_names text[])
returns void
language plpgsql
as $body$
declare
  wanted constant text[] := array(select distinct name from unnest(queue_names) as name where name is not null);
  held bigint;
begin
  if cardinality(wanted) = 0 then
    return;
  end if;
  for round in 1..100 loop
    perform from :"schema"._private_job_queues as queues
    where queues.queue_name = any (wanted)
    order by queues.id
    for key share;
    get diagnostics held = row_count;
    if held = cardinality(wanted) then
      return;
    end if;
    insert into :"schema"._private_job_queues (queue_name)
    select name
    from unnest(wanted) as name
    where not exists (select from :"schema"._private_job_queues as queues where queues.queue_name = name)
    order by name
    on conflict do nothing;
  end loop;
  raise exception 'queues %: rows that can be neither seen nor made; row level security may hide them', wanted
    using errcode = 'insufficient_privilege';
end;
$body$;
