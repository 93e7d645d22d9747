-- does: Makes the table of the progress and the checkpoints of jobs, and the functions that read it for every role.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Only jobs whose handlers say how far they have come have a row here, and the flag `backfill.progress` in their own row. A
-- job that is replaced under its key loses its flags, so the row of the job before does not count for it any more. Other
-- programs delete jobs without knowing this table, and a foreign key would cost each of their deletes: so a row may outlive
-- its job, and workers delete it. Rows are written again and again, which their page has room for.
create table :"schema".backfill_progress (
  job_id bigint not null,
  attempt integer not null,
  done double precision,
  total double precision,
  note text,
  checkpoint json,
  progress_at timestamptz not null default now(),
  constraint backfill_progress_pkey primary key (job_id)
) with (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

alter table :"schema".backfill_progress enable row level security;

comment on table :"schema".backfill_progress is
  'How far jobs have come, as their handlers said last, and from where their next attempts can go on.';

-- The progress of some jobs, without checkpoints: of jobs in the queue, and of those that are dead letters.
create function :"schema".backfill_see_progress(job_ids bigint[]) returns table (
  job_id bigint, attempt integer, done double precision, total double precision, note text, progress_at timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
  select progress.job_id, progress.attempt, progress.done, progress.total, progress.note, progress.progress_at
  from unnest(job_ids) as asked (id)
  join :"schema".backfill_progress as progress on progress.job_id = any (array[asked.id])
  where exists (
      select
      from :"schema"._private_jobs as jobs
      where jobs.id = any (array[progress.job_id])
        and coalesce(jobs.flags ? 'backfill.progress', false)
    )
    or exists (select from :"schema".backfill_dlq as entries where entries.original_job_id = any (array[progress.job_id]))
$body$;

-- The checkpoint of a job; null where it has none, and where the caller may not read the table.
create function :"schema".backfill_checkpoint(of_job bigint) returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
  if not has_table_privilege(pg_typeof(null:::"schema".backfill_progress)::text::regclass, 'select') then
    return null;
  end if;
  return (
    select progress.checkpoint from :"schema".backfill_progress as progress where progress.job_id = any (array[of_job])
  );
end;
$body$;

revoke execute on function :"schema".backfill_see_progress(bigint[]), :"schema".backfill_checkpoint(bigint) from public;
