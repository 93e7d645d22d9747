-- does: Makes backfill_add_producer_unique, by which a producer without any right on a table adds a job whose key then stays
--   reserved for a while.
-- foundation: no
-- transaction: yes
-- breaking: no

-- As backfill_add_unique, which it calls. What the job has of payload and error that this call did not write is not shown:
-- where the key was reserved, or with unsafe_dedupe, or where two arrays were joined, it may be another's.
create function :"schema".backfill_add_producer_unique(
  identifier text, payload json, queue_name text, run_at timestamptz, max_attempts integer, job_key text,
  priority integer, flags text[], job_key_mode text, unique_for interval, tell boolean,
  out job :"schema"._private_jobs, out until timestamptz, out kept boolean, out in_queue boolean
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  done record;
begin
  perform :"schema".backfill_check_job(identifier, queue_name, max_attempts, job_key, priority, flags);
  if job_key_mode is null or job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode = %: expected replace, preserve_run_at or unsafe_dedupe', job_key_mode
      using errcode = 'invalid_parameter_value';
  end if;
  for done in
    select added.*
    from :"schema".backfill_add_unique(
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode, unique_for,
      coalesce(tell, true)
    ) as added
  loop
    job := done.job;
    until := done.until;
    kept := done.kept;
    in_queue := done.in_queue;
    job.payload := case
      when kept or (job.revision > 0 and job_key_mode = 'unsafe_dedupe') then 'null'
      else coalesce(backfill_add_producer_unique.payload, '{}')
    end;
    job.last_error := null;
    return next;
  end loop;
end;
$body$;

revoke execute
on function :"schema".backfill_add_producer_unique(
  text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean
)
from public;
