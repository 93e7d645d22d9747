-- does: Makes backfill_gather_producer_jobs, by which a producer without any right on a table adds the jobs of several calls
--   together.
-- foundation: no
-- transaction: yes
-- breaking: no

-- As backfill_gather_jobs, which it calls. What a job has of payload and error that this call did not write is not shown:
-- where two arrays were joined, or with unsafe_dedupe, it may be another's.
create function :"schema".backfill_gather_producer_jobs(
  identifiers text[], queue_names text[], payloads text[], priorities integer[], run_ats timestamptz[], delays interval[],
  max_attempts integer[], flags text[], job_keys text[], job_key_mode text, tell boolean, patience text
) returns setof :"schema"._private_jobs
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
begin
  perform :"schema".backfill_check_lengths(
    cardinality(identifiers), cardinality(queue_names), cardinality(payloads), cardinality(priorities),
    cardinality(run_ats), cardinality(max_attempts), cardinality(flags), cardinality(coalesce(job_keys, identifiers))
  );
  perform :"schema".backfill_check_job(
    task, queue, most, key, priority, array(select jsonb_object_keys(flag_object::jsonb))
  )
  from unnest(identifiers, queue_names, max_attempts, job_keys, priorities, flags)
    as specs (task, queue, most, key, priority, flag_object);
  if job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    raise exception 'job_key_mode = %: expected replace, preserve_run_at or unsafe_dedupe', job_key_mode
      using errcode = 'invalid_parameter_value';
  end if;
  -- The values of the flags are not a producer's to choose.
  flags := array(
    select (select jsonb_object_agg(flag, true) from jsonb_object_keys(flag_object::jsonb) as flag)::text
    from unnest(flags) with ordinality as given (flag_object, place)
    order by place
  );
  for job in
    select *
    from :"schema".backfill_gather_jobs(
      identifiers, queue_names, payloads, priorities, run_ats, delays, max_attempts, flags, job_keys, job_key_mode, tell,
      patience
    )
  loop
    if job.key is not null then
      job.payload := case
        when job.revision > 0 and job_key_mode = 'unsafe_dedupe' then 'null'
        else coalesce(payloads[array_position(job_keys, job.key)], '{}')
      end;
    end if;
    job.last_error := null;
    return next job;
  end loop;
end;
$body$;

revoke execute
on function :"schema".backfill_gather_producer_jobs(
  text[], text[], text[], integer[], timestamptz[], interval[], integer[], text[], text[], text, boolean, text
)
from public;
