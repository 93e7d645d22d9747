-- does: Makes the function that frees keys which stay reserved, and lets the removal of a job, by its id or its key, free its
--   key.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Frees keys whose jobs are not in the queue, or have lost the key there; gives back how many it freed. With `job_ids` it frees
-- only those that are reserved for these jobs. It is called when the jobs are removed already, by the same transaction. It
-- never waits: a reservation that another transaction holds is being freed there, or its time was over and it belongs to a
-- new job.
create function :"schema".backfill_free_reservations(job_keys text[], job_ids bigint[] default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  held text[];
  freed bigint;
begin
  held := array(
    select reservations.job_key
    from :"schema".backfill_reservations as reservations
    where reservations.job_key = any (job_keys)
      and coalesce(job_ids is null or reservations.job_id = any (job_ids), false)
    order by reservations.job_key
    for update of reservations skip locked
  );
  -- Looked at now that they are held: before, another transaction may have reserved one of them for a new job.
  delete from :"schema".backfill_reservations as reservations
  where reservations.job_key = any (held)
    and coalesce(job_ids is null or reservations.job_id = any (job_ids), false)
    and not exists (
      select
      from :"schema"._private_jobs as jobs
      where jobs.id = any (array[reservations.job_id])
        and coalesce(jobs.key = reservations.job_key, false)
    );
  get diagnostics freed = row_count;
  return freed;
end;
$body$;

revoke execute on function :"schema".backfill_free_reservations(text[], bigint[]) from public;

-- Removes the job of an id or of a key, as complete_jobs and remove_job do, and frees the key. By its key it is freed even if
-- its job has ended.
create function :"schema".backfill_remove_any_job(job_id bigint, job_key text)
returns setof :"schema"._private_jobs
language plpgsql
as $body$
declare
  job :"schema"._private_jobs;
begin
  if job_key is not null then
    select removed.* into job from :"schema".remove_job(job_key) as removed;
    if job.id is not null then
      return next job;
    end if;
    perform :"schema".backfill_free_reservations(array[job_key]);
  else
    for job in select removed.* from :"schema".complete_jobs(array[job_id]) as removed loop
      return next job;
      if job.key is not null then
        perform :"schema".backfill_free_reservations(array[job.key], array[job.id]);
      end if;
    end loop;
  end if;
end;
$body$;
