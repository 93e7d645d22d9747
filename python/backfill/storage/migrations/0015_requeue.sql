-- does: Makes the functions by which a requeue sees what has changed since it began, and undoes itself.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Undoes the statement that calls it.
create or replace function :"schema".backfill_refuse(message text, code text) returns bigint
language plpgsql volatile
as $$
begin
  raise exception '%', message using errcode = code;
end;
$$;

-- Whether a job is there, as of now: also for a statement that has waited for a lock since it began.
create or replace function :"schema".backfill_waits(job_id bigint) returns boolean
language plpgsql volatile
as $$
begin
  return exists (select from :"schema"._private_jobs as jobs where jobs.id = job_id);
end;
$$;
