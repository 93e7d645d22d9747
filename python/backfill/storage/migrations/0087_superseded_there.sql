-- does: Makes the function that says which jobs were replaced or removed while a worker of the Rust engine ran them, and lets
--   the roles call it that have a worker's printed grants already.
-- foundation: no
-- transaction: yes
-- breaking: no

-- The engine notes a running job that is replaced or removed by its key in `_private_job_retirements`. If that job then fails,
-- its row stays, and nothing will run it: it is to be deleted, and no dead letter. The engine's permanently_fail_jobs notes
-- its jobs there too, which are to become dead letters. It writes job and note in one transaction, while a job that ran on
-- was written again later, when it failed or its dead worker was recovered, and its run_at was set then, to that time or
-- later. Where the note is older than the row, but run_at is not, somebody has failed the job twice by hand. An array may be
-- a batch, and its items are not in the job that replaced it: it is left out, so it becomes a dead letter and nothing of it
-- is lost. The function runs as the role that migrates, since workers have no rights on that table, which may also come
-- later than this migration.
create function :"schema".backfill_superseded_there(ids bigint[]) returns bigint[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if cardinality(ids) = 0 or not exists (
    select
    from pg_class
    where relname = '_private_job_retirements'
      and relnamespace = (
        select relnamespace from pg_class where oid = pg_typeof(null:::"schema".backfill_workers)::text::regclass
      )
  ) then
    return '{}';
  end if;
  return array(
    select jobs.id
    from :"schema"._private_jobs as jobs
    join :"schema"._private_job_retirements as notes on notes.id = jobs.id
    where jobs.id = any (ids)
      and jobs.key is null
      and json_typeof(jobs.payload) <> 'array'
      and jobs.xmin <> notes.xmin
      and jobs.run_at >= jobs.updated_at
  );
end;
$body$;

revoke all on function :"schema".backfill_superseded_there(bigint[]) from public;

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
      on functions.pronamespace = jobs.relnamespace and functions.proname = 'backfill_superseded_there'
    where one <> 0
      and policies.polname ~ '^backfill_worker_'
  loop
    execute format('grant execute on function %s to %I', granted.called, granted.name);
  end loop;
end;
$body$;
