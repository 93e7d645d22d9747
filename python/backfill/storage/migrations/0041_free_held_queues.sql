-- does: Makes the function that frees serial queues which are held for jobs that have ended.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Frees the queues that are held for jobs which do not need them any more: for some jobs, or for all where job_ids is null.
-- With null it also renews the locks of the other held queues, since other programs take a lock of 4 hours for abandoned,
-- and deletes the rows of jobs that are gone. A queue whose row somebody has locked is passed over: a later call finds it.
-- Returns how many queues it freed. Every role may call it, because it frees no queue that is still needed.
create function :"schema".backfill_free_queues(job_ids bigint[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  v_queues integer[];
  v_holders text[];
  v_freed integer := 0;
begin
  if job_ids = '{}' then
    return 0;
  end if;
  select array_agg(held.queue_id), array_agg('backfill:retry:' || held.job_id) into v_queues, v_holders
  from :"schema".backfill_see_held_queues() as held
  where not held.needed
    and (job_ids is null or held.job_id = any (job_ids));
  if v_queues is not null then
    -- Each queue is looked at again, since it may be held for another job by now.
    update :"schema"._private_job_queues as queues
    set locked_by = null, locked_at = null
    where queues.id = any (array(
        select free.id
        from :"schema"._private_job_queues as free
        where free.id = any (v_queues)
          and coalesce(free.locked_by = any (v_holders), false)
        order by free.id
        for no key update skip locked
      ));
    get diagnostics v_freed = row_count;
    if v_freed > 0 then
      perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || v_freed::text || '}');
    end if;
  end if;
  if job_ids is not null then
    return v_freed;
  end if;
  select array_agg(held.queue_id), array_agg('backfill:retry:' || held.job_id) into v_queues, v_holders
  from :"schema".backfill_see_held_queues() as held
  where held.needed
    and held.locked_at < now() - interval '2 minutes';
  if v_queues is not null then
    update :"schema"._private_job_queues as queues
    set locked_at = now()
    where queues.id = any (array(
        select old.id
        from :"schema"._private_job_queues as old
        where old.id = any (v_queues)
          and coalesce(old.locked_by = any (v_holders), false)
        order by old.id
        for no key update skip locked
      ));
  end if;
  delete from :"schema".backfill_held_queues as old
  where old.ctid = any (array(
      select held.ctid
      from :"schema".backfill_held_queues as held
      left join :"schema"._private_jobs as jobs on jobs.id = any (array[held.job_id])
      left join :"schema"._private_job_queues as queues
        on queues.id = any (array[held.queue_id])
        and queues.locked_by = 'backfill:retry:' || held.job_id
      where jobs.id is null
        and queues.id is null
      for update of held skip locked
    ));
  return v_freed;
end;
$body$;

revoke execute on function :"schema".backfill_free_queues(bigint[]) from public;
