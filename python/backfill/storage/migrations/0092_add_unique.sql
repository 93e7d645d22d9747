-- does: Makes backfill_add_unique, by which a client adds a job whose key then stays reserved for a while.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Who adds a job takes the reservation first and then the job. Who removes a job has the job, and never waits for a
-- reservation (see backfill_free_reservations). So no two calls wait for each other in a ring.
--
-- A reservation that holds is only read: a call that is refused writes nothing and holds nothing. Gives back a row with
-- `kept` for it; the columns of its job are null, but for the id and the key, when the job is not in the queue any more.
--
-- Gives back no row where another program's add_job lost a race for the key. Where a waiting job was left as it is
-- (unsafe_dedupe), no job was added, so nothing is reserved, and `until` is null.
create function :"schema".backfill_add_unique(
  identifier text, payload json, queue_name text, run_at timestamptz, max_attempts integer, job_key text,
  priority integer, flags text[], job_key_mode text, unique_for interval, tell boolean,
  out job :"schema"._private_jobs, out until timestamptz, out kept boolean, out in_queue boolean
) returns setof record
language plpgsql
as $body$
declare
  held :"schema".backfill_reservations;
begin
  if job_key is null or length(job_key) not between 1 and 512 then
    raise exception 'job_key: expected 1 to 512 characters, since it is the key that stays reserved'
      using errcode = 'invalid_parameter_value';
  elsif unique_for is null or not unique_for between '1 millisecond' and '3650 days' then
    raise exception 'unique_for = %: expected 1 millisecond to 3650 days', unique_for using errcode = 'invalid_parameter_value';
  end if;
  loop
    select reservations.* into held
    from :"schema".backfill_reservations as reservations
    where reservations.job_key = any (array[backfill_add_unique.job_key]);
    if not found then
      insert into :"schema".backfill_reservations (job_key, job_id, reserved_until)
      values (backfill_add_unique.job_key, 0, clock_timestamp() + unique_for)
      on conflict on constraint backfill_reservations_pkey do nothing;
    elsif held.reserved_until <= clock_timestamp() then
      update :"schema".backfill_reservations as reservations
      set job_id = 0, reserved_until = clock_timestamp() + unique_for
      where reservations.job_key = any (array[backfill_add_unique.job_key])
        and coalesce(reservations.reserved_until <= clock_timestamp(), false);
    else
      select jobs.* into job from :"schema"._private_jobs as jobs where jobs.id = any (array[held.job_id]);
      in_queue := found;
      kept := true;
      until := held.reserved_until;
      job.id := held.job_id;
      job.key := case when in_queue then job.key else held.job_key end;
      return next;
      return;
    end if;
    exit when found;
  end loop;

  if tell then
    select added.* into job
    from :"schema".add_job(
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode
    ) as added;
  else
    perform :"schema".backfill_have_names(array[identifier], array[queue_name]);
    select added.* into job
    from :"schema".backfill_gather_jobs(
      array[identifier], array[queue_name], array[coalesce(payload, '{}')::text], array[coalesce(priority, 0)],
      array[run_at], null, array[coalesce(max_attempts, 25)],
      array[(select jsonb_object_agg(flag, true) from unnest(flags) as flag)::text], array[job_key], job_key_mode, false, null
    ) as added;
  end if;
  if job.id is null or (job_key_mode = 'unsafe_dedupe' and job.revision > 0) then
    delete from :"schema".backfill_reservations as reservations
    where reservations.job_key = any (array[backfill_add_unique.job_key]);
  else
    -- The time counts from now, since another transaction may have been waited for.
    update :"schema".backfill_reservations as reservations
    set job_id = job.id, reserved_until = clock_timestamp() + unique_for
    where reservations.job_key = any (array[backfill_add_unique.job_key])
    returning reservations.reserved_until into until;
  end if;
  kept := false;
  in_queue := true;
  if job.id is not null then
    return next;
  end if;
end;
$body$;
