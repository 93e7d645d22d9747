-- does: makes the contract's tables of names: tasks, serial queues, and the recurring items that are known
-- part: contract
-- breaking: no

create table :"schema"._private_tasks (
  id integer generated always as identity constraint tasks_pkey primary key,
  identifier text not null
    constraint tasks_identifier_key unique
    constraint tasks_identifier_check check (length(identifier) <= 128)
);

-- A queue is locked and freed once a job, in columns that no index has: with room left on each page the new version
-- stays on it and no index is touched (HOT).
create table :"schema"._private_job_queues (
  id integer generated always as identity constraint job_queues_pkey1 primary key,
  queue_name text not null
    constraint job_queues_queue_name_key unique
    constraint job_queues_queue_name_check check (length(queue_name) <= 128),
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
)
with (fillfactor = 50);

create table :"schema"._private_known_crontabs (
  identifier text constraint known_crontabs_pkey primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);

-- Names that the contract's own chain of migrations ends with: later ones may speak of them.
alter sequence :"schema"._private_tasks_id_seq rename to tasks_id_seq;
alter sequence :"schema"._private_job_queues_id_seq rename to job_queues_id_seq;

alter table :"schema"._private_tasks enable row level security;
alter table :"schema"._private_job_queues enable row level security;
alter table :"schema"._private_known_crontabs enable row level security;
