-- does: Makes the functions by which a producer removes and reschedules jobs that wait, and sees jobs and ends whose ids it
--   knows, without any right on a table. None of them touches a job that a worker holds or that was given up.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A job as producers see it: neither its payload nor its error.
create function :"schema".backfill_see_job(job_id bigint) returns setof :"schema".backfill_seen_job
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
  select
    jobs.id, jobs.job_queue_id, jobs.task_id, 'null'::json, jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts,
    null::text, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags,
    (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = jobs.task_id),
    (select queues.queue_name from :"schema"._private_job_queues as queues where queues.id = jobs.job_queue_id)
  from :"schema"._private_jobs as jobs
  where jobs.id = job_id
$body$;

-- Removes the waiting job of an id or of a key, and gives it back as it was.
create function :"schema".backfill_remove_job(job_id bigint default null, job_key text default null)
returns setof :"schema".backfill_seen_job
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  found_id bigint;
begin
  select jobs.id into found_id
  from :"schema"._private_jobs as jobs
  where (jobs.id = backfill_remove_job.job_id or jobs.key = backfill_remove_job.job_key)
    and jobs.is_available
  for update;
  return query select * from :"schema".backfill_see_job(found_id);
  delete from :"schema"._private_jobs as jobs where jobs.id = found_id;
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
) returns setof :"schema".backfill_seen_job
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  changed bigint[];
begin
  perform :"schema".backfill_check_job('any', null, max_attempts, null, priority, null);
  if attempts not between 0 and 32767 then
    raise exception 'attempts = %: expected 0 to 32767', attempts using errcode = 'invalid_parameter_value';
  end if;
  with given as (
    update :"schema"._private_jobs as jobs
    set
      run_at = coalesce(backfill_reschedule_jobs.run_at, jobs.run_at),
      priority = coalesce(backfill_reschedule_jobs.priority, jobs.priority),
      attempts = coalesce(backfill_reschedule_jobs.attempts, jobs.attempts),
      max_attempts = coalesce(backfill_reschedule_jobs.max_attempts, jobs.max_attempts),
      updated_at = now()
    where (jobs.id = any(job_ids) or jobs.key = any(job_keys))
      and jobs.is_available
    returning jobs.id
  )
  select array_agg(id order by id) into changed from given;
  return query
  select seen.*
  from unnest(changed) as id
  cross join lateral :"schema".backfill_see_job(id) as seen;
end;
$body$;
