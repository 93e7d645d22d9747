-- does: Makes remove_job again, which now marks a running batch, so that those who end the batch can tell one that was removed
--   from one that was replaced.
-- foundation: yes
-- transaction: yes
-- breaking: no

-- A running job that is replaced and one that is removed lose the same: their key and their further attempts. For most jobs it
-- makes no difference. For a batch it does: the job that took its key does not have its items, so those that fail are kept as
-- a dead letter, while those of one that was removed are to be dropped. The mark is a flag of the job's own row, as a request
-- to cancel a job is, and stands only on rows that this package's workers hold and whose payload is an array.
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
      returning * into v_job;
      return v_job;
    end;
    $function$
  $made$;
end;
$body$;
