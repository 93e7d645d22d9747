-- What a role needs to enqueue jobs, singly and in bulk. It may see and replace waiting jobs, since a job key asks for
-- that; it may neither remove nor lock any.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant select, insert on :"schema"._private_tasks, :"schema"._private_job_queues to :"role";
-- Holding a row against its deletion takes the right to update one of its columns; a policy below refuses to use it.
grant update (id) on :"schema"._private_tasks, :"schema"._private_job_queues to :"role";
grant
  select,
  insert (id, job_queue_id, task_id, payload, priority, run_at, max_attempts, key, flags),
  update (
    job_queue_id, task_id, payload, priority, run_at, attempts, max_attempts, last_error, updated_at, key, revision, flags
  )
on :"schema"._private_jobs to :"role";
-- To await a result.
grant select on :"schema".backfill_ends to :"role";
grant usage on sequence :"sequence" to :"role";
grant execute on all functions in schema :"schema" to :"role";
revoke execute on function :"schema".backfill_make_ends(date[]), :"schema".backfill_drop_ends() from :"role";

drop policy if exists :"policy" on :"schema"._private_tasks;
create policy :"policy" on :"schema"._private_tasks to :"role" using (true) with check (true);
drop policy if exists :"held" on :"schema"._private_tasks;
create policy :"held" on :"schema"._private_tasks as restrictive for update to :"role" using (true) with check (false);
drop policy if exists :"policy" on :"schema"._private_job_queues;
create policy :"policy" on :"schema"._private_job_queues to :"role" using (true) with check (true);
drop policy if exists :"held" on :"schema"._private_job_queues;
create policy :"held" on :"schema"._private_job_queues as restrictive for update to :"role" using (true) with check (false);
drop policy if exists :"policy" on :"schema"._private_jobs;
create policy :"policy" on :"schema"._private_jobs to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema".backfill_ends;
create policy :"policy" on :"schema".backfill_ends for select to :"role" using (true);
