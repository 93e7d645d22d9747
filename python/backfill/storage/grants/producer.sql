-- What a role needs to enqueue jobs, singly and in bulk. It may see and replace waiting jobs, since a job key asks for
-- that, and it may not remove any.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant select, insert on :"schema"._private_tasks, :"schema"._private_job_queues to :"role";
-- Holding a row against its deletion takes the right to update a column; this one cannot be changed by anyone.
grant update (id) on :"schema"._private_tasks, :"schema"._private_job_queues to :"role";
grant select, insert, update on :"schema"._private_jobs to :"role";
grant usage on sequence :"sequence" to :"role";
grant execute on all functions in schema :"schema" to :"role";

drop policy if exists :"policy" on :"schema"._private_tasks;
create policy :"policy" on :"schema"._private_tasks to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema"._private_job_queues;
create policy :"policy" on :"schema"._private_job_queues to :"role" using (true) with check (true);
drop policy if exists :"policy" on :"schema"._private_jobs;
create policy :"policy" on :"schema"._private_jobs to :"role" using (true) with check (true);
