-- What version 0.1 printed for a producer, with PostgreSQL's own names in the place of the role's policies.
begin;
grant usage on schema graphile_worker to :role;
grant select on graphile_worker.migrations, graphile_worker.backfill_migrations to :role;
grant select, insert on graphile_worker._private_tasks, graphile_worker._private_job_queues to :role;
grant update (id) on graphile_worker._private_tasks, graphile_worker._private_job_queues to :role;
grant
  select,
  insert (id, job_queue_id, task_id, payload, priority, run_at, max_attempts, key, flags),
  update (
    job_queue_id, task_id, payload, priority, run_at, attempts, max_attempts, last_error, updated_at, key, revision,
    flags
  )
on graphile_worker._private_jobs to :role;
grant select on graphile_worker.backfill_ends to :role;
grant usage on sequence graphile_worker.jobs_id_seq1 to :role;
grant execute on all functions in schema graphile_worker to :role;
create policy backfill_producer_:role on graphile_worker._private_tasks to :role using (true) with check (true);
create policy backfill_held_producer_:role on graphile_worker._private_tasks
  as restrictive for update to :role using (true) with check (false);
create policy backfill_producer_:role on graphile_worker._private_job_queues to :role using (true) with check (true);
create policy backfill_held_producer_:role on graphile_worker._private_job_queues
  as restrictive for update to :role using (true) with check (false);
create policy backfill_producer_:role on graphile_worker._private_jobs to :role using (true) with check (true);
create policy backfill_producer_:role on graphile_worker.backfill_ends for select to :role using (true);
commit;
