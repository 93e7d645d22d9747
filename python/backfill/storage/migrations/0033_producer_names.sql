-- does: Makes the functions by which producers, who have no rights on tables, make tasks and serial queues, hold them, and
--   are told their names.
-- foundation: no
-- transaction: yes
-- breaking: no

-- The names of a job's task and serial queue, of which its row has the ids: also those that the same statement has made.
create function :"schema".backfill_see_names(task_id integer, job_queue_id integer)
returns table (task_identifier text, queue_name text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
  select
    (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = task_id),
    (select queues.queue_name from :"schema"._private_job_queues as queues where queues.id = job_queue_id)
$body$;

-- Makes the tasks and queues that are missing, in the order of their names, so that two callers never wait for each other
-- in a ring. A brief one waits for others that make the same names for 200 ms at most. The known names are looked up by
-- themselves: in a join the planner could as well read all of the table, dead rows too.
create function :"schema".backfill_make_names(identifiers text[], queue_names text[], brief boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if array_position(identifiers, null) is not null or array_position(queue_names, null) is not null then
    raise exception 'identifiers, queue_names: a null among them; leave it out' using errcode = 'null_value_not_allowed';
  end if;
  if brief then
    perform set_config('lock_timeout', '200ms', true);
  end if;
  insert into :"schema"._private_tasks (identifier)
  select distinct name
  from unnest(identifiers) as name
  where name not in (
    select tasks.identifier
    from :"schema"._private_tasks as tasks
    where tasks.identifier = any (identifiers)
  )
  order by name
  on conflict do nothing;
  insert into :"schema"._private_job_queues (queue_name)
  select distinct name
  from unnest(queue_names) as name
  where name not in (
    select queues.queue_name
    from :"schema"._private_job_queues as queues
    where queues.queue_name = any (queue_names)
  )
  order by name
  on conflict do nothing;
end;
$body$;

-- Keeps tasks and queues from being deleted before the transaction's end; says whether all of them are there. No name may
-- come twice.
create function :"schema".backfill_keep_names(identifiers text[], queue_names text[]) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  kept bigint;
begin
  perform from :"schema"._private_tasks as tasks where tasks.identifier = any(identifiers) for key share;
  get diagnostics kept = row_count;
  if kept < cardinality(identifiers) then
    return false;
  end if;
  perform from :"schema"._private_job_queues as queues where queues.queue_name = any(queue_names) for key share;
  get diagnostics kept = row_count;
  return kept = cardinality(queue_names);
end;
$body$;

revoke execute
on function
  :"schema".backfill_see_names(integer, integer),
  :"schema".backfill_make_names(text[], text[], boolean),
  :"schema".backfill_keep_names(text[], text[])
from public;
