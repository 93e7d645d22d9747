-- does: Makes the functions that lock the rows of paused serial queues, and unlock those of queues that are paused no more.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A queue is paused by a row of control of the kind 'pause' whose subject is 'queue:NAME'. While it stands, the queue's row
-- is locked by 'backfill:pause', a name that no worker has, so every program leaves the queue alone, however many jobs it
-- has. Where the queue was held for a job's retry, the lock is 'backfill:pause:<job id>', and the hold comes back with the
-- end of the pause. A queue that a worker has locked keeps that lock until its job has ended.

-- Locks those of some queues that are paused and that no worker has locked, and gives the names of those that are not
-- paused. It also renews old locks, since other programs take one of 4 hours for abandoned. The row of control is held
-- until the transaction ends, so who ends the pause waits and then sees the lock. Where somebody is ending the pause right
-- now, the queue is left as it is. No row is waited for.
create function :"schema".backfill_lock_paused_queues(queue_ids integer[]) returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  v_paused integer[];
begin
  select array_agg(held.id) into v_paused
  from (
    select queues.id
    from unnest(queue_ids) as asked (id)
    join :"schema"._private_job_queues as queues on queues.id = any (array[asked.id])
    join :"schema".backfill_control as control on control.subject = any (array['queue:' || queues.queue_name])
    where control.kind = 'pause'
    for key share of control skip locked
  ) as held;
  update :"schema"._private_job_queues as queues
  set
    locked_by = case when queues.locked_at is null then 'backfill:pause' else 'backfill:pause' || substr(queues.locked_by, 15) end,
    locked_at = now()
  where queues.id = any (array(
      select idle.id
      from unnest(v_paused) as paused (id)
      join :"schema"._private_job_queues as idle on idle.id = any (array[paused.id])
      where idle.locked_at is null
        or idle.locked_by ~ '^backfill:retry:[0-9]{1,18}$'
        or idle.locked_by ~ '^backfill:pause(:[0-9]{1,18})?$' and idle.locked_at < now() - interval '30 minutes'
      for no key update of idle skip locked
    ));
  return query
  select queues.queue_name
  from unnest(queue_ids) as asked (id)
  join :"schema"._private_job_queues as queues on queues.id = any (array[asked.id])
  left join :"schema".backfill_control as control
    on control.kind = 'pause'
    and control.subject = any (array['queue:' || queues.queue_name])
  where control.version is null;
end;
$body$;

-- Unlocks those of some queues that are locked for a pause which does not stand any more, or holds them again for the job's
-- retry that they were held for, where that job still needs it. Returns how many it unlocked. The caller holds their rows.
create function :"schema".backfill_unlock_resumed_queues(queue_ids integer[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  v_count integer;
begin
  update :"schema"._private_job_queues as queues
  set (locked_by, locked_at) = (
    select 'backfill:retry:' || jobs.id, now()
    from :"schema"._private_jobs as jobs
    where jobs.id = any (array[
        case when queues.locked_by ~ '^backfill:pause:[0-9]{1,18}$' then substr(queues.locked_by, 16)::bigint end
      ])
      and coalesce(jobs.job_queue_id = queues.id and jobs.flags ? 'backfill.block_on_retry', false)
      and (jobs.locked_at is not null or jobs.attempts < jobs.max_attempts)
  )
  where queues.id = any (queue_ids)
    and (queues.locked_by = 'backfill:pause' or starts_with(queues.locked_by, 'backfill:pause:'))
    and not exists (
      select
      from :"schema".backfill_control as control
      where control.kind = 'pause'
        and control.subject = 'queue:' || queues.queue_name
    );
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || v_count::text || '}');
  end if;
  return v_count;
end;
$body$;

revoke execute
on function :"schema".backfill_lock_paused_queues(integer[]), :"schema".backfill_unlock_resumed_queues(integer[])
from public;
