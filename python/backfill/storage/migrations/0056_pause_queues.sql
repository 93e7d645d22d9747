-- does: Has a control that pauses or resumes a serial queue lock or unlock the queue's row in the same transaction, and makes the
--   functions by which upkeep sees to it that this stays so.
-- foundation: no
-- transaction: yes
-- breaking: no

-- It is a trigger, so that no way of writing or deleting such a control leaves out the queue's row. It holds that row until
-- the transaction ends: meanwhile no claim takes a job of the queue. A queue that a worker has locked is left to the worker.
create function :"schema".backfill_pause_queues() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  v_name text;
  v_id integer;
begin
  if tg_op = 'DELETE' then
    v_name := substr(old.subject, 7);
    select queues.id into v_id
    from :"schema"._private_job_queues as queues
    where queues.queue_name = v_name
    for no key update;
    perform :"schema".backfill_unlock_resumed_queues(array[v_id]);
    return null;
  end if;
  v_name := substr(new.subject, 7);
  loop
    select queues.id into v_id
    from :"schema"._private_job_queues as queues
    where queues.queue_name = v_name
    for no key update;
    exit when found;
    insert into :"schema"._private_job_queues (queue_name) values (v_name) on conflict (queue_name) do nothing;
  end loop;
  perform :"schema".backfill_lock_paused_queues(array[v_id]);
  return null;
end;
$body$;

create trigger backfill_pause_queues after insert or update on :"schema".backfill_control
for each row when (new.kind = 'pause' and starts_with(new.subject, 'queue:'))
execute function :"schema".backfill_pause_queues();

create trigger backfill_resume_queues after delete on :"schema".backfill_control
for each row when (old.kind = 'pause' and starts_with(old.subject, 'queue:'))
execute function :"schema".backfill_pause_queues();

-- Locks the paused queues that somebody has unlocked, such as a worker of another program whose job ended.
create function :"schema".backfill_keep_queues_paused() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  v_queues integer[];
begin
  select array_agg(queues.id) into v_queues
  from :"schema".backfill_control as control
  join :"schema"._private_job_queues as queues on queues.queue_name = any (array[substr(control.subject, 7)])
  where control.kind = 'pause'
    and starts_with(control.subject, 'queue:')
    and (
      queues.locked_at is null
      or starts_with(queues.locked_by, 'backfill:retry:')
      or starts_with(queues.locked_by, 'backfill:pause') and queues.locked_at < now() - interval '30 minutes'
    );
  if v_queues is not null then
    perform :"schema".backfill_lock_paused_queues(v_queues);
  end if;
end;
$body$;

-- Unlocks the queues that are locked for a pause which does not stand any more, and returns how many there were. The end of
-- a pause unlocks its queue itself, so this finds only what came with a restored copy or was written by hand.
create function :"schema".backfill_free_resumed_queues() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  return :"schema".backfill_unlock_resumed_queues(array(
    select queues.id
    from :"schema"._private_job_queues as queues
    where starts_with(queues.locked_by, 'backfill:pause')
      and not exists (
        select
        from :"schema".backfill_control as control
        where control.kind = 'pause'
          and control.subject = 'queue:' || queues.queue_name
      )
    for no key update of queues skip locked
  ));
end;
$body$;

revoke execute
on function :"schema".backfill_pause_queues(), :"schema".backfill_keep_queues_paused(), :"schema".backfill_free_resumed_queues()
from public;
