-- does: Puts this package's add_job in the place of another program's, as migration 4 makes it.
-- locks: none but the function's row
-- index: none: it only makes
-- params: none
create or replace function :"schema".add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns :"schema"._private_jobs
language plpgsql
as $function$
declare
  v_job :"schema"._private_jobs;
begin
  if job_key is null or job_key_mode is null or job_key_mode in ('replace', 'preserve_run_at') then
    select * into v_job
    from :"schema".add_jobs(
      array[row(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts::smallint,
        add_job.job_key, add_job.priority::smallint, add_job.flags
      ):::"schema".job_spec],
      add_job.job_key_mode = 'preserve_run_at'
    );
    return v_job;
  elsif job_key_mode = 'unsafe_dedupe' then
    return :"schema".backfill_dedupe_job(
      row(
        add_job.identifier, add_job.payload, add_job.queue_name, add_job.run_at, add_job.max_attempts::smallint,
        add_job.job_key, add_job.priority::smallint, add_job.flags
      ):::"schema".job_spec
    );
  end if;
  raise exception 'job_key_mode is %, expected replace, preserve_run_at or unsafe_dedupe', job_key_mode
    using errcode = 'GWBKM';
end;
$function$
