-- What the Rust engine adds to Graphile Worker's schema (its migrations 20 to 22), rebuilt from the contract's facts: a
-- table of workers with functions to beat and to find the stale, another add_jobs, and a table of superseded jobs.
create table graphile_worker._private_workers (
  id text primary key,
  last_heartbeat_at timestamptz not null,
  started_at timestamptz not null default now(),
  metadata jsonb
);
create function graphile_worker.worker_heartbeat(worker_id text) returns void language sql as $$
  insert into graphile_worker._private_workers (id, last_heartbeat_at) values (worker_id, now())
  on conflict (id) do update set last_heartbeat_at = now()
$$;
create function graphile_worker.stale_workers(older_than interval) returns setof text language sql stable as $$
  select id from graphile_worker._private_workers where last_heartbeat_at < now() - older_than
$$;

create table graphile_worker._private_job_retirements (
  id bigint primary key references graphile_worker._private_jobs on delete cascade
);

create or replace function graphile_worker.add_jobs(
  specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false
)
returns setof graphile_worker._private_jobs
language plpgsql
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended(keys.job_key, 0))
  from (select job_key from unnest(specs) where job_key is not null order by 1) as keys;
  insert into graphile_worker._private_tasks (identifier)
  select distinct spec.identifier
  from unnest(specs) as spec
  where not exists (select from graphile_worker._private_tasks as tasks where tasks.identifier = spec.identifier)
  on conflict do nothing;
  insert into graphile_worker._private_job_queues (queue_name)
  select distinct spec.queue_name
  from unnest(specs) as spec
  where spec.queue_name is not null
    and not exists (select from graphile_worker._private_job_queues as queues where queues.queue_name = spec.queue_name)
  on conflict do nothing;
  with retired as (
    update graphile_worker._private_jobs as jobs
    set key = null, attempts = jobs.max_attempts, updated_at = now()
    from unnest(specs) as spec
    where jobs.key = spec.job_key and jobs.is_available is not true
    returning jobs.id
  )
  insert into graphile_worker._private_job_retirements select id from retired on conflict do nothing;
  perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || array_length(specs, 1)::text || '}');
  return query
  insert into graphile_worker._private_jobs as jobs
    (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
  select
    queues.id, tasks.id, coalesce(spec.payload, '{}'), coalesce(spec.run_at, now()), coalesce(spec.max_attempts, 25),
    spec.job_key, coalesce(spec.priority, 0), (select jsonb_object_agg(flag, true) from unnest(spec.flags) as f (flag))
  from unnest(specs) as spec
  join graphile_worker._private_tasks as tasks on tasks.identifier = spec.identifier
  left join graphile_worker._private_job_queues as queues on queues.queue_name = spec.queue_name
  on conflict (key) do update
  set payload = excluded.payload, run_at = excluded.run_at, revision = jobs.revision + 1, attempts = 0,
    updated_at = now()
  returning *;
end;
$$;

insert into graphile_worker.migrations (id, breaking) values (20, false), (21, false), (22, false);
