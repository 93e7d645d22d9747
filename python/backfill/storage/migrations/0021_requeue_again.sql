-- does: Makes the function by which a requeue sees that the job of the one before it is running.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Whether a worker holds a job, as of now: also for a statement that has waited for a lock since it began.
create or replace function :"schema".backfill_runs(job_id bigint) returns boolean
language plpgsql volatile
as $$
begin
  return exists (
    select from :"schema"._private_jobs as jobs where jobs.id = job_id and jobs.locked_at is not null
  );
end;
$$;
