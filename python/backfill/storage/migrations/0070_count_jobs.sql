-- does: Makes the function that counts jobs for a limit which run already when it begins to hold.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Gives slots to jobs that workers of ours have locked without any: to all of the task, or to those with the given ids. A limit
-- begins to hold while jobs run; or it counts by another field from now on, and then the slots by the old one fall free.
-- The slots are added behind those that are there, and so may be beyond the limit: the jobs count as they do where a limit was
-- lowered. All who add slots so take turns, and the turn at each value's state after that. So no two of them wait for each other,
-- though several values share a turn; and those who take shares do not wait.
create function :"schema".backfill_count_jobs(of_task text, job_ids bigint[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  held :"schema".backfill_limits;
  line record;
  state record;
  added integer;
begin
  select * into held from :"schema".backfill_limits as limits where limits.task = of_task;
  if held.most is null or held.probing then
    return;
  elsif job_ids is null then
    job_ids := array(
      select locked.id
      from :"schema".backfill_workers as workers
      cross join lateral (
        select jobs.id, jobs.task_id
        from :"schema"._private_jobs as jobs
        where jobs.locked_by = workers.id
        offset 0 -- so that no plan begins with all jobs
      ) as locked
      where locked.task_id = (select tasks.id from :"schema"._private_tasks as tasks where tasks.identifier = of_task)
    );
  end if;
  for line in
    select named.value, array_agg(named.id) as ids
    from (
      select
        jobs.id,
        case
          when held.by_path is not null and jobs.flags ? 'backfill.limited' then :"schema".backfill_limit_value(jobs.flags) else ''
        end as value
      from :"schema"._private_jobs as jobs
      where jobs.id = any (job_ids)
    ) as named
    group by named.value
    order by named.value collate "C"
  loop
    perform :"schema".backfill_take_turn('counts');
    perform :"schema".backfill_take_turn('state ' || (hashtextextended(of_task || chr(10) || line.value, 0) & 1023));
    select states.ctid as place, states.slots into state
    from :"schema".backfill_limit_states as states
    where states.task = of_task collate "default" and states.value collate "C" = line.value
    order by states.next_at desc
    limit 1
    for update;
    if not found then
      insert into :"schema".backfill_limit_states as states (task, value, next_at)
      values (of_task, line.value, clock_timestamp() - interval '366 days')
      returning states.ctid as place, states.slots into state;
    end if;
    update :"schema".backfill_shares as shares
    set job_id = 0, worker = '', turn = shares.turn + 1
    where shares.task = of_task collate "default" and shares.value <> line.value and shares.job_id = any (line.ids);
    insert into :"schema".backfill_shares as shares (task, value, slot, turn, job_id, worker, attempt, locked_at)
    select
      of_task, line.value, state.slots + row_number() over (order by jobs.id),
      (extract(epoch from clock_timestamp()) * 1000000)::bigint, jobs.id, jobs.locked_by, jobs.attempts, now()
    from :"schema"._private_jobs as jobs
    where jobs.id = any (line.ids)
      and jobs.locked_by in (select workers.id from :"schema".backfill_workers as workers)
      and not exists (
        select from :"schema".backfill_shares as had
        where had.job_id = any (array[jobs.id])
          and had.task = of_task
          and had.value = line.value
          and had.worker = jobs.locked_by
      );
    get diagnostics added = row_count;
    if added > 0 then
      update :"schema".backfill_limit_states as states
      set slots = state.slots + added
      where states.ctid = any (array[state.place]);
    end if;
  end loop;
end;
$body$;

revoke execute on function :"schema".backfill_count_jobs(text, bigint[]) from public;
