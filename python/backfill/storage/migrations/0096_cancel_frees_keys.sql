-- does: Lets a job that is cancelled while it waits free its key, if that stays reserved. All else is as it was: a job that runs
--   keeps it.
-- foundation: no
-- transaction: yes
-- breaking: no

create or replace function :"schema".backfill_cancel_jobs(job_ids bigint[], why text default null, keep double precision default null)
returns table (job_id bigint, status text, worker text, reason text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job :"schema"._private_jobs;
  flag jsonb;
  records json;
  removed bigint[] := '{}';
  keys text[] := '{}';
  asked boolean := false;
begin
  if cardinality(job_ids) > 1000 then
    raise exception 'job_ids: % of them, at most 1000 a call', cardinality(job_ids) using errcode = 'invalid_parameter_value';
  end if;
  for job in
    select * from :"schema"._private_jobs as jobs where jobs.id = any (job_ids) order by jobs.id for update
  loop
    flag := job.flags -> 'backfill.cancel';
    job_id := job.id;
    worker := job.locked_by;
    reason := coalesce(flag, to_jsonb(true)) ->> 'reason';
    if job.locked_at is null then
      continue when not job.is_available and flag is null;
      if flag is null then
        reason := left(why, 1000);
        job.flags := jsonb_build_object('backfill.cancel', jsonb_build_object('reason', reason));
      end if;
      records := :"schema".backfill_attempt_records(job.id, null);
      delete from :"schema"._private_jobs as jobs where jobs.id = any (array[job.id]);
      delete from :"schema".backfill_attempts as old where old.job_id = any (array[job.id]);
      perform :"schema".backfill_keep_cancelled(
        job.id, job.task_id, job.job_queue_id, job.attempts, job.max_attempts, job.priority, job.key, job.created_at,
        job.run_at, null, job.flags, null, keep, records
      );
      removed := removed || job.id;
      keys := array_remove(keys || job.key, null);
      status := 'removed';
    elsif job.locked_by is null or not starts_with(job.locked_by, 'backfill_') then
      status := 'foreign';
    else
      status := 'requested';
      if flag is null then
        reason := left(why, 1000);
        update :"schema"._private_jobs as jobs
        set
          key = null, max_attempts = greatest(jobs.attempts, 1),
          flags = case when jsonb_typeof(jobs.flags) = 'object' then jobs.flags else '{}' end || jsonb_build_object(
            'backfill.cancel', jsonb_build_object(
              'reason', reason, 'by', session_user, 'at', now(), 'key', jobs.key, 'max_attempts', jobs.max_attempts
            )
          )
        where jobs.id = any (array[job.id]);
      end if;
      asked := true;
    end if;
    return next;
  end loop;
  if removed <> '{}' then
    perform :"schema".backfill_free_queues(removed);
    if keys <> '{}' then
      perform :"schema".backfill_free_reservations(keys, removed);
    end if;
    perform pg_notify('backfill:ends', case when cardinality(removed) <= 350 then to_json(removed)::text else '[]' end);
  end if;
  if asked then
    perform :"schema".backfill_tell_workers('cancelled');
  end if;
end;
$body$;
