-- does: Gives the tables and functions of recurring items to the roles that have a worker's or an operator's printed grants
--   already: programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  here regnamespace := (select relnamespace from pg_class where oid = jobs);
  granted record;
  reached record;
begin
  for granted in
    select policies.polname as policy, pg_get_userbyid(one) as name, substring(policies.polname from '^backfill_([a-z]+)_') as duty
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    where policies.polrelid = jobs
      and one <> 0
      and policies.polname ~ '^backfill_(worker|operator)_'
  loop
    for reached in
      select relations.oid::regclass as place, known.rights
      from (
        values
          ('worker', 'backfill_crontabs', 'select, insert, update, delete'),
          ('worker', 'backfill_schedules', 'select'),
          ('worker', 'backfill_schedule_jobs', 'select, insert, update, delete'),
          ('operator', 'backfill_crontabs', 'select'),
          ('operator', 'backfill_schedules', 'select'),
          ('operator', 'backfill_schedule_jobs', 'select'),
          ('operator', '_private_known_crontabs', 'select')
      ) as known (duty, name, rights)
      join pg_class as relations on relations.relnamespace = here and relations.relname = known.name
      where known.duty = granted.duty
    loop
      execute format('grant %s on %s to %I', reached.rights, reached.place, granted.name);
      execute format('drop policy if exists %I on %s', granted.policy, reached.place);
      if reached.rights = 'select' then
        execute format('create policy %I on %s for select to %I using (true)', granted.policy, reached.place, granted.name);
      else
        execute format(
          'create policy %I on %s to %I using (true) with check (true)', granted.policy, reached.place, granted.name
        );
      end if;
    end loop;
    for reached in
      select functions.oid::regprocedure as called
      from (
        values
          ('worker', 'backfill_register_schedules'),
          ('worker', 'backfill_lock_schedules'),
          ('worker', 'backfill_note_runs'),
          ('worker', 'backfill_add_runs'),
          ('operator', 'backfill_say_schedule'),
          ('operator', 'backfill_trigger_schedule'),
          ('operator', 'backfill_see_job'),
          ('operator', 'backfill_see_names')
      ) as known (duty, name)
      join pg_proc as functions on functions.pronamespace = here and functions.proname = known.name
      where known.duty = granted.duty
    loop
      execute format('grant execute on function %s to %I', reached.called, granted.name);
    end loop;
  end loop;
end;
$body$;
