-- does: Gives the table of reservations and its functions to the roles that have a worker's printed grants already, and the
--   functions alone to those that have a producer's: programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  reservations regclass := pg_typeof(null:::"schema".backfill_reservations)::text::regclass;
  here regnamespace := (select relnamespace from pg_class where oid = jobs);
  granted record;
begin
  for granted in
    select policies.polname as policy, pg_get_userbyid(one) as name
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    where policies.polrelid = jobs
      and one <> 0
      and policies.polname ~ '^backfill_worker_'
  loop
    execute format('grant select, insert, update, delete on %s to %I', reservations, granted.name);
    execute format('drop policy if exists %I on %s', granted.policy, reservations);
    execute format(
      'create policy %I on %s to %I using (true) with check (true)', granted.policy, reservations, granted.name
    );
    -- An owner's default privileges may have taken new functions from the public.
    execute format(
      'grant execute on function %1$s.backfill_free_reservations(text[], bigint[]), %1$s.backfill_remove_any_job(bigint, text), '
      '%1$s.backfill_add_unique('
      'text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean) to %2$I',
      here, granted.name
    );
  end loop;
  for granted in
    select distinct pg_get_userbyid(rights.grantee) as name
    from pg_proc as adding
    cross join aclexplode(adding.proacl) as rights
    where adding.pronamespace = here
      and adding.proname = 'backfill_add_job'
      and rights.grantee not in (0, adding.proowner)
  loop
    execute format(
      'grant execute on function %1$s.backfill_free_reservations(text[], bigint[]), %1$s.backfill_add_producer_unique('
      'text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean) to %2$I',
      here, granted.name
    );
  end loop;
end;
$body$;
