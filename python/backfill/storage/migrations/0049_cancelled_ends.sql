-- does: Makes the function that writes the end of a cancelled job, and has the one that buries jobs leave cancelled ones out.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Writes the end of a job that was cancelled and whose row the caller has just deleted, and returns the job's id. Where the
-- caller does not know how long the job's task keeps ends (`keep` is null), the end is kept for ten minutes, so that whoever
-- awaits the job's result is told. The flag of the job says why it was cancelled, and what its key and its number of attempts
-- were before; `records` are its attempts that did not complete, as backfill_attempt_records gives them. Where the database
-- refuses the end, the job ends without one (null is returned).
create or replace function :"schema".backfill_keep_cancelled(
  job_id bigint, task_id integer, queue_id integer, job_attempts integer, job_max_attempts integer, job_priority integer,
  key text, job_created_at timestamptz, job_run_at timestamptz, job_started_at timestamptz, job_flags jsonb, worker text,
  keep double precision, records json
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  flag jsonb := job_flags -> 'backfill.cancel';
  seconds double precision := least(coalesce(keep, 600), 63115200);
  v_constraint text;
begin
  for round in 1..5 loop
    begin
      insert into :"schema".backfill_ends (
        job_id, task_identifier, how, attempts, max_attempts, priority, queue_name, job_key, created_at, run_at, started_at,
        expires_at, worker_id, error, attempt_records
      ) values (
        job_id, (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = task_id), 'cancelled',
        job_attempts,
        case when jsonb_typeof(flag -> 'max_attempts') = 'number' then (flag ->> 'max_attempts')::integer else job_max_attempts end,
        job_priority,
        (select queues.queue_name from :"schema"._private_job_queues as queues where queues.id = queue_id),
        coalesce(key, flag ->> 'key'), job_created_at, job_run_at, job_started_at, now() + seconds * interval '1 second', worker,
        flag ->> 'reason', records
      );
      return job_id;
    exception
      when check_violation then
        get stacked diagnostics v_constraint = constraint_name;
        if v_constraint <> '' then
          return null;
        end if;
        -- The partition of the day has just been made: the next round finds it.
      when lock_not_available or deadlock_detected or query_canceled or serialization_failure then
        raise;
      when others then
        return null;
    end;
  end loop;
  raise exception 'the partition of the end of job % is being made; try again', job_id
    using errcode = 'check_violation', table = 'backfill_ends';
end;
$body$;

-- Workers of the version before know nothing of cancelled jobs: where such a job's last attempt fails, they delete its row
-- and bury it. It must not become a dead letter, which somebody could requeue.
create or replace function :"schema".backfill_bury(
  job_id bigint, task text, queue text, job_payload json, job_priority integer, key text, job_attempts integer,
  job_max_attempts integer, job_flags jsonb, job_created_at timestamptz, job_run_at timestamptz, error text, reason text
) returns bigint
language sql volatile
as $$
  select case
    when job_flags ? 'backfill.cancel' then null
    else :"schema".backfill_bury(
      job_id, task, queue, job_payload, job_priority, key, job_attempts, job_max_attempts, job_flags, job_created_at,
      job_run_at, error, reason, null::json
    )
  end
$$;

revoke execute
on function
  :"schema".backfill_keep_cancelled(
    bigint, integer, integer, integer, integer, integer, text, timestamptz, timestamptz, timestamptz, jsonb, text,
    double precision, json
  )
from public;
