-- does: Gives the right to call the functions of breakers to the roles that have a worker's printed grants already: workers of
--   this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  called regprocedure;
  granted text;
begin
  for called in
    select oid::regprocedure
    from pg_proc
    where pronamespace = (select relnamespace from pg_class where oid = jobs)
      and proname in ('backfill_trip_breaker', 'backfill_end_trial')
  loop
    for granted in
      select distinct pg_get_userbyid(one)
      from pg_policy
      cross join unnest(polroles) as one
      where polrelid = jobs
        and one <> 0
        and polname ~ '^backfill_worker_'
    loop
      execute format('grant execute on function %s to %I', called, granted);
    end loop;
  end loop;
end;
$body$;
