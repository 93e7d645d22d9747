-- does: Makes reschedule_jobs and force_unlock_workers, fills the contract's ledger and tells of it.
-- foundation: yes
-- transaction: yes
-- breaking: no

create function :"schema".reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority integer default null,
  attempts integer default null,
  max_attempts integer default null
)
returns setof :"schema"._private_jobs
language sql
as $function$
  update :"schema"._private_jobs as jobs
  set
    run_at = coalesce(reschedule_jobs.run_at, jobs.run_at),
    priority = coalesce(reschedule_jobs.priority::smallint, jobs.priority),
    attempts = coalesce(reschedule_jobs.attempts::smallint, jobs.attempts),
    max_attempts = coalesce(reschedule_jobs.max_attempts::smallint, jobs.max_attempts),
    updated_at = now()
  where jobs.id = any (job_ids)
    and (jobs.locked_at is null or jobs.locked_at < now() - interval '4 hours')
  returning *
$function$;

create function :"schema".force_unlock_workers(worker_ids text[])
returns void
language sql
as $function$
  update :"schema"._private_jobs as jobs
  set locked_at = null, locked_by = null
  where jobs.locked_by = any (worker_ids);
  update :"schema"._private_job_queues as queues
  set locked_at = null, locked_by = null
  where queues.locked_by = any (worker_ids)
$function$;

insert into :"schema".migrations (id, breaking)
select number, number = any (array[1, 3, 11, 13, 14, 16, 19])
from generate_series(1, 19) as number;

select pg_notify('worker:migrate', '{"migrationNumber":19,"breaking":true}');
