-- does: Makes the table of the serial queues that are held for a job's retry, and the functions that write and read it.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A queue is held for a job by its own lock: locked_by is 'backfill:retry:<job id>', a name that no worker has. So every
-- program leaves the queue alone, and the claims of this package give it to that job only. An index of these locks would
-- make each claim of a serial job write to it. This table says where to look for them instead. A row stays here until its
-- job is gone, whether or not the queue is held at the moment.
create table :"schema".backfill_held_queues (
  job_id bigint not null,
  queue_id integer not null,
  since timestamptz not null default now(),
  constraint backfill_held_queues_pkey primary key (job_id, queue_id)
);

alter table :"schema".backfill_held_queues enable row level security;

comment on table :"schema".backfill_held_queues is
  'Serial queues that were held for the retry of a job with the flag backfill.block_on_retry. A queue is held while its '
  'locked_by is backfill:retry:<job_id>. Roles read and write this table by functions only.';

-- Notes that a queue is held for a job from now on, and returns what the caller is to write into the queue's locked_by.
create function :"schema".backfill_hold_queue(queue_id integer, job_id bigint) returns text
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
  insert into :"schema".backfill_held_queues (queue_id, job_id)
  values (backfill_hold_queue.queue_id, backfill_hold_queue.job_id)
  on conflict do nothing;
  select 'backfill:retry:' || backfill_hold_queue.job_id
$body$;

-- Says whether a queue has been held for a job before.
create function :"schema".backfill_was_held(queue_id integer, job_id bigint) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
  select exists (
    select
    from :"schema".backfill_held_queues as held
    where held.job_id = backfill_was_held.job_id
      and held.queue_id = backfill_was_held.queue_id
  )
$body$;

-- Lists the queues that are held at the moment. `needed` is false where the job is gone, has no attempt left, is in another
-- queue now, or has the flag no more.
create function :"schema".backfill_see_held_queues()
returns table (
  queue_id integer, queue_name text, job_id bigint, since timestamptz, run_at timestamptz, locked_at timestamptz,
  needed boolean
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
  select
    queues.id, queues.queue_name, held.job_id, held.since, jobs.run_at, queues.locked_at,
    coalesce(
      jobs.job_queue_id = held.queue_id
      and jobs.flags ? 'backfill.block_on_retry'
      and (jobs.locked_at is not null or jobs.attempts < jobs.max_attempts),
      false
    )
  from :"schema".backfill_held_queues as held
  join :"schema"._private_job_queues as queues on queues.id = any (array[held.queue_id])
  left join :"schema"._private_jobs as jobs on jobs.id = any (array[held.job_id])
  where queues.locked_by = 'backfill:retry:' || held.job_id
$body$;

revoke execute
on function
  :"schema".backfill_hold_queue(integer, bigint), :"schema".backfill_was_held(integer, bigint),
  :"schema".backfill_see_held_queues()
from public;
