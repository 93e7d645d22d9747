-- What a role needs to work: to claim and settle jobs, and to enqueue and manage them. It includes what a producer needs.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant select, insert on :"schema"._private_tasks to :"role";
-- Holding a row against its deletion takes the right to update one of its columns; a policy below refuses to use it.
grant update (id) on :"schema"._private_tasks to :"role";
grant select, insert, update on :"schema"._private_known_crontabs to :"role";
grant select, insert, update, delete
on
  :"schema"._private_jobs, :"schema"._private_job_queues, :"schema".backfill_workers, :"schema".backfill_dlq, :"schema".backfill_counters
to :"role";
grant select, insert on :"schema".backfill_ends to :"role";
grant select, insert, delete on :"schema".backfill_attempts to :"role";
grant select, insert, update, delete on :"schema".backfill_progress, :"schema".backfill_reservations to :"role";
grant select on :"schema".backfill_control, :"schema".backfill_limits to :"role";
grant select, insert, update, delete on :"schema".backfill_limit_states, :"schema".backfill_shares to :"role";
grant select, insert, update, delete on :"schema".backfill_crontabs, :"schema".backfill_schedule_jobs to :"role";
grant select on :"schema".backfill_schedules to :"role";
grant usage on sequence :"sequence", :"schema".backfill_dlq_id_seq to :"role";
grant execute on all functions in schema :"schema" to :"role";
do $body$
begin
  -- To say something to the fleet is for operators.
  if not exists (
    select from pg_catalog.pg_policy where polname = :'operator_policy' and polrelid = :'control'::pg_catalog.regclass
  ) then
    revoke execute
    on function
      :"schema".backfill_say(text, text, jsonb, text, text),
      :"schema".backfill_unsay(text, text),
      :"schema".backfill_unsay(bigint),
      :"schema".backfill_say_schedule(text, text, text, text, timestamptz),
      :"schema".backfill_trigger_schedule(
        text, text, json, text, timestamptz, integer, text, integer, text[], text
      )
    from :"role";
  end if;
end;
$body$;

drop policy if exists :"policy" on :"schema"._private_tasks;
create policy :"policy" on :"schema"._private_tasks to :"role" using (true) with check (true);
drop policy if exists :"held" on :"schema"._private_tasks;
create policy :"held" on :"schema"._private_tasks as restrictive for update to :"role" using (true) with check (false);
drop policy if exists :"policy" on :"schema"._private_job_queues;
create policy :"policy" on :"schema"._private_job_queues to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema"._private_jobs;
create policy :"policy" on :"schema"._private_jobs to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema"._private_known_crontabs;
create policy :"policy" on :"schema"._private_known_crontabs to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_workers;
create policy :"policy" on :"schema".backfill_workers to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_dlq;
create policy :"policy" on :"schema".backfill_dlq to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_ends;
create policy :"policy" on :"schema".backfill_ends to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_attempts;
create policy :"policy" on :"schema".backfill_attempts to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_progress;
create policy :"policy" on :"schema".backfill_progress to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_reservations;
create policy :"policy" on :"schema".backfill_reservations to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_counters;
create policy :"policy" on :"schema".backfill_counters to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_control;
create policy :"policy" on :"schema".backfill_control for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_limits;
create policy :"policy" on :"schema".backfill_limits for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_limit_states;
create policy :"policy" on :"schema".backfill_limit_states to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_shares;
create policy :"policy" on :"schema".backfill_shares to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_crontabs;
create policy :"policy" on :"schema".backfill_crontabs to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_schedules;
create policy :"policy" on :"schema".backfill_schedules for select to :"role" using (true);
drop policy if exists :"policy" on :"schema".backfill_schedule_jobs;
create policy :"policy" on :"schema".backfill_schedule_jobs to :"role" using (true) with check (true);
