-- does: Has the function that lists held queues see those that are paused as well, makes one that says which are, and gives
--   workers' roles that have their printed grants already the right to call the functions for paused queues.
-- foundation: no
-- transaction: yes
-- breaking: no

create or replace function :"schema".backfill_see_held_queues()
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
  where queues.locked_by in ('backfill:retry:' || held.job_id, 'backfill:pause:' || held.job_id)
$body$;

-- Whether the pause of a queue stands.
create function :"schema".backfill_is_paused(queue_name text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
  select exists (
    select
    from :"schema".backfill_control as control
    where control.kind = 'pause'
      and control.subject = 'queue:' || backfill_is_paused.queue_name
  )
$body$;

revoke execute on function :"schema".backfill_is_paused(text) from public;

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  called record;
  granted record;
begin
  for called in
    select oid::regprocedure as signature
    from pg_proc
    where pronamespace = (select relnamespace from pg_class where oid = jobs)
      and proname in (
        'backfill_is_paused', 'backfill_lock_paused_queues', 'backfill_keep_queues_paused', 'backfill_free_resumed_queues'
      )
  loop
    for granted in
      select distinct pg_get_userbyid(one) as name
      from pg_policy
      cross join unnest(polroles) as one
      where polrelid = jobs
        and one <> 0
        and polname ~ '^backfill_worker_'
    loop
      execute format('grant execute on function %s to %I', called.signature, granted.name);
    end loop;
  end loop;
end;
$body$;
