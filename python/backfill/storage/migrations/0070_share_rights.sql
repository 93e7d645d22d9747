-- does: Gives what workers need of the tables and functions of limits to the roles that have a worker's printed grants already:
--   programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

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
          'backfill_take_value', 'backfill_take_shares', 'backfill_take_values'
        )
    loop
      execute format('grant execute on function %s to %I', called, granted.name);
    end loop;
  end loop;
end;
$body$;
