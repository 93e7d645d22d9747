-- does: Makes backfill_add_job, by which a producer adds one job without any right on a table. It takes what add_job takes;
--   its name is ours, since Graphile Worker's later migrations make their own functions anew.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Gives back the job; nothing where another program's add_job lost a race for the key. What the job has of payload and error
-- that this call did not write is not shown: with unsafe_dedupe, or where two arrays were joined, it may be another's.
create function :"schema".backfill_add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
) returns setof :"schema"._private_jobs
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
begin
  perform :"schema".backfill_check_job(identifier, queue_name, max_attempts, job_key, priority, flags);
  select * into job
  from :"schema".add_job(
    identifier := backfill_add_job.identifier,
    payload := backfill_add_job.payload,
    queue_name := backfill_add_job.queue_name,
    run_at := backfill_add_job.run_at,
    max_attempts := backfill_add_job.max_attempts,
    job_key := backfill_add_job.job_key,
    priority := backfill_add_job.priority,
    flags := backfill_add_job.flags,
    job_key_mode := backfill_add_job.job_key_mode
  );
  if job.id is null then
    return;
  end if;
  job.payload := case
    when job.revision > 0 and job_key_mode = 'unsafe_dedupe' then 'null' else coalesce(backfill_add_job.payload, '{}')
  end;
  job.last_error := null;
  return next job;
end;
$body$;

revoke execute
on function :"schema".backfill_add_job(text, json, text, timestamptz, integer, text, integer, text[], text)
from public;
