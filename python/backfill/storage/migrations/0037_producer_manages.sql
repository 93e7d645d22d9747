-- does: Makes the functions by which a producer removes and reschedules jobs that wait, and sees a job whose id it knows,
--   without any right on a table. None of them touches a job that a worker holds or that was given up; none shows a payload
--   or an error.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Rows are found by their ids alone. The other conditions stand in coalesce(), so that the planner cannot use them as the
-- condition of an index: it could as well begin with all jobs, and read those too that are deleted and not vacuumed. The
-- keys are compared once more, since a job may lose its key while its row is waited for.

create function :"schema".backfill_see_job(job_id bigint) returns setof :"schema"._private_jobs
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
begin
  for job in select * from :"schema"._private_jobs as jobs where jobs.id = job_id loop
    job.payload := 'null';
    job.last_error := null;
    return next job;
  end loop;
end;
$body$;

-- Removes the waiting job of an id or of a key, and gives it back as it was.
create function :"schema".backfill_remove_job(job_id bigint default null, job_key text default null)
returns setof :"schema"._private_jobs
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
begin
  for job in
    delete from :"schema"._private_jobs as jobs
    where jobs.id = any (
        array[backfill_remove_job.job_id]
        || array(
          select keyed.id
          from :"schema"._private_jobs as keyed
          where keyed.key = any (array[backfill_remove_job.job_key])
        )
      )
      and coalesce(jobs.id = backfill_remove_job.job_id or jobs.key = backfill_remove_job.job_key, false)
      and coalesce(jobs.is_available, false)
    returning jobs.*
  loop
    job.payload := 'null';
    job.last_error := null;
    return next job;
  end loop;
end;
$body$;

-- Changes when and how jobs run that wait, by their ids or their keys; what is null stays. Gives them back as they are now.
create function :"schema".backfill_reschedule_jobs(
  job_ids bigint[],
  job_keys text[] default '{}',
  run_at timestamptz default null,
  priority integer default null,
  attempts integer default null,
  max_attempts integer default null
) returns setof :"schema"._private_jobs
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
begin
  perform :"schema".backfill_check_job('any', null, max_attempts, null, priority, null);
  if attempts not between 0 and 32767 then
    raise exception 'attempts = %: expected 0 to 32767', attempts using errcode = 'invalid_parameter_value';
  end if;
  for job in
    update :"schema"._private_jobs as jobs
    set
      run_at = coalesce(backfill_reschedule_jobs.run_at, jobs.run_at),
      priority = coalesce(backfill_reschedule_jobs.priority, jobs.priority),
      attempts = coalesce(backfill_reschedule_jobs.attempts, jobs.attempts),
      max_attempts = coalesce(backfill_reschedule_jobs.max_attempts, jobs.max_attempts),
      updated_at = now()
    where jobs.id = any (
        job_ids || array(select keyed.id from :"schema"._private_jobs as keyed where keyed.key = any (job_keys))
      )
      and coalesce(jobs.id in (select unnest(job_ids)) or jobs.key in (select unnest(job_keys)), false)
      and coalesce(jobs.is_available, false)
    returning jobs.*
  loop
    job.payload := 'null';
    job.last_error := null;
    return next job;
  end loop;
end;
$body$;
