-- does: Makes the function by which an operator adds a job of a recurring item apart from its runs.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Adds the job and gives its id. An operator may add items of any task, so this lets it do nothing more.
create function :"schema".backfill_trigger_schedule(
  item text, task text, payload json, queue_name text, run_at timestamptz, max_attempts integer, job_key text,
  priority integer, flags text[], job_key_mode text
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  job_id bigint;
begin
  if not exists (select from :"schema"._private_known_crontabs as known where known.identifier = any (array[item])) then
    raise exception 'identifier = %: no scheduler knows such an item', item using errcode = 'no_data_found';
  end if;
  perform :"schema".backfill_check_job(task, queue_name, max_attempts, job_key, priority, flags);
  for round in 1..10 loop
    select added.id into job_id
    from :"schema".add_job(
      task, payload, queue_name, coalesce(run_at, clock_timestamp()), max_attempts, job_key, priority, flags,
      coalesce(job_key_mode, 'replace')
    ) as added;
    exit when job_id is not null;
  end loop;
  if job_id is null then
    raise exception 'a job of the key % was replaced by others ten times', job_key using errcode = 'serialization_failure';
  end if;
  return job_id;
end;
$body$;

revoke execute
on function :"schema".backfill_trigger_schedule(
  text, text, json, text, timestamptz, integer, text, integer, text[], text
)
from public;
