-- does: makes the contract's table of jobs, the view that shows them with their names, and the type of a job to be added
-- part: contract
-- breaking: no

create table :"schema"._private_jobs (
  id bigint generated always as identity constraint jobs_pkey1 primary key,
  job_queue_id integer,
  task_id integer not null,
  payload json not null default '{}'::json,
  priority smallint not null default 0,
  run_at timestamptz not null default now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25 constraint jobs_max_attempts_check check (max_attempts >= 1),
  last_error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  key text
    constraint jobs_key_key1 unique
    constraint jobs_key_check check (length(key) > 0 and length(key) <= 512),
  locked_at timestamptz,
  locked_by text,
  revision integer not null default 0,
  flags jsonb,
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored
);

alter sequence :"schema"._private_jobs_id_seq rename to jobs_id_seq1;
alter table :"schema"._private_jobs enable row level security;

create index jobs_main_index on :"schema"._private_jobs (priority, run_at)
  include (id, task_id, job_queue_id)
  where is_available = true;

create index jobs_no_queue_index on :"schema"._private_jobs (priority, run_at)
  include (id, task_id)
  where is_available = true and job_queue_id is null;

create view :"schema".jobs as
select
  jobs.id,
  queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from :"schema"._private_jobs as jobs
join :"schema"._private_tasks as tasks on tasks.id = jobs.task_id
left join :"schema"._private_job_queues as queues on queues.id = jobs.job_queue_id;

-- The order of its fields is part of the contract: callers fill it by position.
create type :"schema".job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);
