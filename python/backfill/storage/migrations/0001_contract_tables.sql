-- does: Makes the contract's tables, its type and its view, as Graphile Worker's migration 19 leaves them.
-- foundation: yes
-- transaction: yes
-- breaking: no

create table :"schema".migrations (
  id integer constraint migrations_pkey primary key,
  ts timestamptz not null default now(),
  breaking boolean not null default false
);

create table :"schema"._private_tasks (
  id integer not null generated always as identity constraint tasks_pkey primary key,
  identifier text not null
    constraint tasks_identifier_key unique
    constraint tasks_identifier_check check (length(identifier) <= 128)
);

-- A queue's row is updated twice a job; with room on its page that costs no index entry.
create table :"schema"._private_job_queues (
  id integer not null generated always as identity constraint job_queues_pkey1 primary key,
  queue_name text not null
    constraint job_queues_queue_name_key unique
    constraint job_queues_queue_name_check check (length(queue_name) <= 128),
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
) with (fillfactor = 70);

create table :"schema"._private_jobs (
  id bigint not null generated always as identity constraint jobs_pkey1 primary key,
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

create index jobs_main_index on :"schema"._private_jobs (priority, run_at) include (id, task_id, job_queue_id)
  where (is_available = true);
create index jobs_no_queue_index on :"schema"._private_jobs (priority, run_at) include (id, task_id)
  where (is_available = true and job_queue_id is null);

create table :"schema"._private_known_crontabs (
  identifier text not null constraint known_crontabs_pkey primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);

-- The names that the contract's own chain of migrations ends with: later ones may speak of them.
alter sequence :"schema"._private_tasks_id_seq rename to tasks_id_seq;
alter sequence :"schema"._private_job_queues_id_seq rename to job_queues_id_seq;
alter sequence :"schema"._private_jobs_id_seq rename to jobs_id_seq1;

alter table :"schema"._private_tasks enable row level security;
alter table :"schema"._private_job_queues enable row level security;
alter table :"schema"._private_jobs enable row level security;
alter table :"schema"._private_known_crontabs enable row level security;

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

create view :"schema".jobs as
select
  jobs.id, queues.queue_name, tasks.identifier as task_identifier, jobs.priority, jobs.run_at, jobs.attempts,
  jobs.max_attempts, jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key, jobs.locked_at, jobs.locked_by,
  jobs.revision, jobs.flags
from :"schema"._private_jobs as jobs
join :"schema"._private_tasks as tasks on tasks.id = jobs.task_id
left join :"schema"._private_job_queues as queues on queues.id = jobs.job_queue_id;
