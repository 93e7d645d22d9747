-- does: Makes the function that says whose add_job and add_jobs are, and by which whoever deletes unused serial queues and tasks
--   keeps other programs from replacing them meanwhile.
-- foundation: no
-- transaction: yes
-- breaking: no

-- This package's add_job and add_jobs hold the rows of a task and a serial queue until the job is there. Those of Graphile
-- Worker 0.18 and of the Rust engine do not, so that a job could be left with a queue that was just deleted. Their migrations
-- write to the contract's ledger in the transaction that replaces the functions. So whoever holds the ledger (`hold`) against
-- writes, and then sees that the functions are this package's, knows that they stay so until its transaction ends. It
-- never waits for the ledger: where another program is migrating, nothing is known.
create function :"schema".backfill_whose_functions(hold boolean) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  here oid := (select typnamespace from pg_type where oid = pg_typeof(null:::"schema"._private_jobs));
  is_held boolean;
  is_unfinished boolean;
begin
  if hold then
    begin
      lock table :"schema".migrations in share mode nowait;
    exception when lock_not_available then
      return 'migrating';
    end;
  end if;
  select
    count(*) = 2 and bool_and(strpos(functions.prosrc, known.helper) > 0),
    coalesce(bool_or(obj_description(functions.oid, 'pg_proc') = 'backfill: unfinished'), false)
  into is_held, is_unfinished
  from pg_proc as functions
  join (values ('add_job', 'backfill_dedupe_job'), ('add_jobs', 'backfill_hold_names')) as known (name, helper)
    on known.name = functions.proname
  where functions.pronamespace = here;
  return case
    when is_held and is_unfinished then 'unfinished'
    when is_held then 'ours'
    when exists (select from :"schema".backfill_migrations as noted where noted.skipped) then 'theirs'
    when to_regclass(format('%s._private_job_retirements', here::regnamespace)) is not null then 'engine'
    else 'replaced'
  end;
end;
$body$;

revoke execute on function :"schema".backfill_whose_functions(boolean) from public;
