-- does: Makes the function that locks a job of a value for a claim. Gives what workers need of the tables and functions of limits
--   to the roles that have a worker's printed grants already: programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Locks a waiting job of a value, with its queue, for the claim that follows. Returns false where somebody else has one of
-- them, where the job waits no more or is another one by now, and where it is not the first one of its queue.
create function :"schema".backfill_lock_job(of_job bigint, of_queue integer, of_value text, task_ids integer[]) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  kept boolean;
begin
  if of_queue is not null then
    select queues.locked_at is not null into kept
    from :"schema"._private_job_queues as queues
    where queues.id = any (array[of_queue])
      and (queues.locked_at is null or queues.locked_by = 'backfill:retry:' || of_job)
    for no key update skip locked;
    if not found then
      return false;
    end if;
  end if;
  perform
  from :"schema"._private_jobs as jobs
  where jobs.id = any (array[of_job])
    and coalesce(jobs.is_available and jobs.run_at <= now() and jobs.job_queue_id is not distinct from of_queue, false)
    and jobs.task_id = any (task_ids)
    and :"schema".backfill_limit_value(jobs.flags) = of_value
    and (of_queue is null or kept or of_job = (
      select head.id
      from :"schema"._private_jobs as head
      where head.is_available = true and head.job_queue_id = of_queue and head.run_at <= now()
      order by head.priority, head.run_at, head.id
      limit 1
    ))
  for update skip locked;
  return found;
end;
$body$;

revoke execute on function :"schema".backfill_lock_job(bigint, integer, text, integer[]) from public;

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  here regnamespace := (select relnamespace from pg_class where oid = jobs);
  granted record;
  called regprocedure;
  reached record;
begin
  for granted in
    select policies.polname as policy, pg_get_userbyid(one) as name
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    where policies.polrelid = jobs
      and one <> 0
      and policies.polname ~ '^backfill_worker_'
  loop
    for reached in
      select relations.oid::regclass as place, known.rights
      from (
        values ('backfill_limits', 'select'), ('backfill_limit_states', 'select, insert, update, delete'),
          ('backfill_shares', 'select, insert, update, delete')
      ) as known (name, rights)
      join pg_class as relations on relations.relnamespace = here and relations.relname = known.name
    loop
      execute format('grant %s on %s to %I', reached.rights, reached.place, granted.name);
      execute format('drop policy if exists %I on %s', granted.policy, reached.place);
      execute format('create policy %I on %s to %I using (true) with check (true)', granted.policy, reached.place, granted.name);
    end loop;
    for called in
      select oid
      from pg_proc
      where pronamespace = here
        and proname in (
          'backfill_resolve_limits', 'backfill_rate_room', 'backfill_lock_state', 'backfill_lock_job', 'backfill_lock_slots',
          'backfill_take_value', 'backfill_take_shares', 'backfill_take_values', 'backfill_count_jobs'
        )
    loop
      execute format('grant execute on function %s to %I', called, granted.name);
    end loop;
  end loop;
end;
$body$;
