-- does: Gives the right to call the functions for cancelled jobs to the roles that have a producer's or a worker's printed
--   grants already: programs of this version work before those are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  called record;
  granted record;
begin
  for called in
    select oid::regprocedure as signature, proname as name
    from pg_proc
    where pronamespace = (select relnamespace from pg_class where oid = jobs)
      and proname in ('backfill_tell_workers', 'backfill_keep_cancelled', 'backfill_cancel_jobs')
  loop
    for granted in
      select distinct pg_get_userbyid(one) as name
      from pg_policy
      cross join unnest(polroles) as one
      where polrelid = jobs
        and one <> 0
        and (polname ~ '^backfill_worker_' or (polname ~ '^backfill_producer_' and called.name = 'backfill_cancel_jobs'))
      union
      -- A producer has no policy since its grants are those of functions: it may remove jobs.
      select pg_get_userbyid(rights.grantee)
      from pg_proc as removing
      cross join aclexplode(removing.proacl) as rights
      where called.name = 'backfill_cancel_jobs'
        and removing.pronamespace = (select relnamespace from pg_class where oid = jobs)
        and removing.proname = 'backfill_remove_job'
        and rights.grantee not in (0, removing.proowner)
    loop
      execute format('grant execute on function %s to %I', called.signature, granted.name);
    end loop;
  end loop;
end;
$body$;
