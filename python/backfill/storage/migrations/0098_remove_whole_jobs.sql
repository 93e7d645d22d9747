-- does: Makes remove_job again, which now removes a job that another transaction added under the key meanwhile, instead of
--   leaving it as one without a key and without attempts, which nobody runs.
-- foundation: yes
-- transaction: yes
-- breaking: no

-- It first deletes a waiting job, and if there is none it takes the key and the further attempts from a running one. Between
-- these two statements a new job can get the key. It waits, so it must be deleted, too: each statement now says which jobs it
-- is for, and both are tried again as long as there is a job of the key.
-- Where the Rust engine has put its own remove_job in the place of ours, that one stays: its workers need what it notes.
do $body$
begin
  if exists (
    select
    from pg_class
    where relname = '_private_job_retirements'
      and relnamespace = (select typnamespace from pg_type where oid = pg_typeof(null:::"schema"._private_jobs))
  ) then
    return;
  end if;
  execute $made$
    create or replace function :"schema".remove_job(job_key text)
    returns :"schema"._private_jobs
    language plpgsql
    strict
    as $function$
    declare
      v_job :"schema"._private_jobs;
    begin
      for round in 1 .. 100 loop
        delete from :"schema"._private_jobs as jobs
        where jobs.key = remove_job.job_key
          and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
        returning * into v_job;
        if found then
          perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":-1}');
          return v_job;
        end if;
        update :"schema"._private_jobs as jobs
        set
          key = null, attempts = jobs.max_attempts, updated_at = now(),
          flags = case
            when starts_with(jobs.locked_by, 'backfill_') and json_typeof(jobs.payload) = 'array'
              then case when jsonb_typeof(jobs.flags) = 'object' then jobs.flags else '{}' end || '{"backfill.removed": true}'
            else jobs.flags
          end
        where jobs.key = remove_job.job_key
          and jobs.locked_at >= now() - interval '4 hours'
        returning * into v_job;
        exit when found or not exists (select from :"schema"._private_jobs as jobs where jobs.key = remove_job.job_key);
      end loop;
      return v_job;
    end;
    $function$
  $made$;
end;
$body$;
