-- does: Gives the table of progress and its functions to the roles that have a worker's printed grants already, and the
--   functions alone to those that have a producer's or an operator's: programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  progress regclass := pg_typeof(null:::"schema".backfill_progress)::text::regclass;
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
    execute format('grant select, insert, update, delete on %s to %I', progress, granted.name);
    execute format('drop policy if exists %I on %s', granted.policy, progress);
    execute format('create policy %I on %s to %I using (true) with check (true)', granted.policy, progress, granted.name);
  end loop;
  for granted in
    select distinct pg_get_userbyid(one) as name
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    where policies.polrelid = jobs
      and one <> 0
      and policies.polname ~ '^backfill_(worker|producer|operator)_'
    union
    -- A producer has no policy since its grants are those of functions: it may remove jobs.
    select pg_get_userbyid(rights.grantee)
    from pg_proc as removing
    cross join aclexplode(removing.proacl) as rights
    where removing.pronamespace = here
      and removing.proname = 'backfill_remove_job'
      and rights.grantee not in (0, removing.proowner)
  loop
    execute format(
      'grant execute on function %1$s.backfill_see_progress(bigint[]), %1$s.backfill_checkpoint(bigint) to %2$I',
      here, granted.name
    );
  end loop;
end;
$body$;
