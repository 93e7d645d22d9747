-- What a role needs to say to the fleet what may run, to undo it, to list it, to ask what holds a job back, and to add, change
-- and pause recurring items. It reads no error, and no payload but those of recurring items. It changes no row of the queue:
-- functions that belong to the role that migrates do that for it.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant select on :"schema".backfill_control to :"role";
grant execute
on function
  :"schema".backfill_say(text, text, jsonb, text, text),
  :"schema".backfill_unsay(text, text),
  :"schema".backfill_unsay(bigint),
  :"schema".backfill_see_progress(bigint[]),
  :"schema".backfill_checkpoint(bigint),
  :"schema".backfill_say_schedule(text, text, text, text, timestamptz),
  :"schema".backfill_trigger_schedule(text, text, json, text, timestamptz, integer, text, integer, text[], text),
  :"schema".backfill_see_job(bigint),
  :"schema".backfill_see_names(integer, integer)
to :"role";

drop policy if exists :"policy" on :"schema".backfill_control;
create policy :"policy" on :"schema".backfill_control for select to :"role" using (true);

-- To ask what holds a job back.
grant select on :"schema"._private_tasks, :"schema"._private_job_queues, :"schema".backfill_workers to :"role";
grant select on :"schema".backfill_limits, :"schema".backfill_limit_states, :"schema".backfill_shares to :"role";
grant select (
  id, task_id, job_queue_id, priority, run_at, attempts, max_attempts, locked_at, locked_by, flags, is_available
) on :"schema"._private_jobs to :"role";
grant select (job_id, how, ended_at, expires_at) on :"schema".backfill_ends to :"role";
grant select (id, original_job_id, failed_at) on :"schema".backfill_dlq to :"role";

drop policy if exists :"policy" on :"schema"._private_tasks;
create policy :"policy" on :"schema"._private_tasks for select to :"role" using (true);
drop policy if exists :"policy" on :"schema"._private_job_queues;
create policy :"policy" on :"schema"._private_job_queues for select to :"role" using (true);
drop policy if exists :"policy" on :"schema"._private_jobs;
create policy :"policy" on :"schema"._private_jobs for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_workers;
create policy :"policy" on :"schema".backfill_workers for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_ends;
create policy :"policy" on :"schema".backfill_ends for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_dlq;
create policy :"policy" on :"schema".backfill_dlq for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_limits;
create policy :"policy" on :"schema".backfill_limits for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_limit_states;
create policy :"policy" on :"schema".backfill_limit_states for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_shares;
create policy :"policy" on :"schema".backfill_shares for select to :"role" using (true);

-- To list recurring items.
grant select
on
  :"schema"._private_known_crontabs, :"schema".backfill_crontabs, :"schema".backfill_schedules,
  :"schema".backfill_schedule_jobs
to :"role";

drop policy if exists :"policy" on :"schema"._private_known_crontabs;
create policy :"policy" on :"schema"._private_known_crontabs for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_crontabs;
create policy :"policy" on :"schema".backfill_crontabs for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_schedules;
create policy :"policy" on :"schema".backfill_schedules for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_schedule_jobs;
create policy :"policy" on :"schema".backfill_schedule_jobs for select to :"role" using (true);
