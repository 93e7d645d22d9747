-- does: Lets the removal of a job by a producer free its key, if it stays reserved. All else is as it was.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Removes the waiting job of an id or of a key, and gives it back as it was.
create or replace function :"schema".backfill_remove_job(job_id bigint default null, job_key text default null)
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
    if job.key is not null then
      perform :"schema".backfill_free_reservations(array[job.key], array[job.id]);
    end if;
  end loop;
  if backfill_remove_job.job_key is not null then
    perform :"schema".backfill_free_reservations(array[backfill_remove_job.job_key]);
  end if;
end;
$body$;
