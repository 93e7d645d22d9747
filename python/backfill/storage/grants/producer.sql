-- What a role needs to enqueue jobs, singly and in bulk, to remove and reschedule those that wait, and to await results. It
-- has no right on any table of the queue: functions that belong to the role that migrates do all of that for it.
do $body$
begin
  -- What older versions granted is taken back, unless the role is a worker's too, whose grants include a producer's, or an
  -- operator's, whose grants would go with it.
  if not exists (
    select
    from pg_catalog.pg_policy
    where (polname = :'worker_policy' and polrelid = :'jobs'::pg_catalog.regclass)
      or (polname = :'operator_policy' and polrelid = :'control'::pg_catalog.regclass)
  ) then
    revoke all on all tables in schema :"schema" from :"role";
    revoke all on all sequences in schema :"schema" from :"role";
    revoke all on all functions in schema :"schema" from :"role";
  end if;
end;
$body$;
drop policy if exists :"policy" on :"schema"._private_tasks;
drop policy if exists :"held" on :"schema"._private_tasks;
drop policy if exists :"policy" on :"schema"._private_job_queues;
drop policy if exists :"held" on :"schema"._private_job_queues;
drop policy if exists :"policy" on :"schema"._private_jobs;
drop policy if exists :"policy" on :"schema".backfill_ends;

grant usage on schema :"schema" to :"role";
-- A client looks at connecting whether it fits the schema.
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant execute
on function
  :"schema".backfill_see_names(integer, integer),
  :"schema".backfill_make_names(text[], text[], boolean),
  :"schema".backfill_keep_names(text[], text[]),
  :"schema".backfill_lock_keys(boolean),
  :"schema".backfill_add_job(text, json, text, timestamptz, integer, text, integer, text[], text),
  :"schema".backfill_add_keyless_jobs(text[], text[], text[], integer[], timestamptz[], integer[], text[]),
  :"schema".backfill_add_keyed_jobs(
    text[], text[], text[], integer[], timestamptz[], integer[], text[], text[], text
  ),
  :"schema".backfill_gather_producer_jobs(
    text[], text[], text[], integer[], timestamptz[], interval[], integer[], text[], text[], text, boolean, text
  ),
  :"schema".backfill_add_producer_unique(
    text, json, text, timestamptz, integer, text, integer, text[], text, interval, boolean
  ),
  :"schema".backfill_free_reservations(text[], bigint[]),
  :"schema".backfill_see_job(bigint),
  :"schema".backfill_see_ends(bigint[]),
  :"schema".backfill_see_progress(bigint[]),
  :"schema".backfill_checkpoint(bigint),
  :"schema".backfill_remove_job(bigint, text),
  :"schema".backfill_free_queues(bigint[]),
  :"schema".backfill_cancel_jobs(bigint[], text, double precision),
  :"schema".backfill_reschedule_jobs(bigint[], text[], timestamptz, integer, integer, integer)
to :"role";
