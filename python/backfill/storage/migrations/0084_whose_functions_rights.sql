-- does: Gives the function that says whose add_job and add_jobs are to the roles that have a worker's printed grants already:
--   workers of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  granted record;
begin
  for granted in
    select distinct functions.oid::regprocedure as called, pg_get_userbyid(one) as name
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    join pg_class as jobs on jobs.oid = policies.polrelid and jobs.reltype = pg_typeof(null:::"schema"._private_jobs)
    join pg_proc as functions
      on functions.pronamespace = jobs.relnamespace and functions.proname = 'backfill_whose_functions'
    where one <> 0
      and policies.polname ~ '^backfill_worker_'
  loop
    execute format('grant execute on function %s to %I', granted.called, granted.name);
  end loop;
end;
$body$;
