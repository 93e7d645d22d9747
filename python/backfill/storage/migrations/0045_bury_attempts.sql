-- does: Makes the function that buries a job among the dead letters with its attempts, and has the one that workers of the
--   version before call use it: they know nothing of the attempts, and an entry that they renew has none.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Writes a job that will not be tried again among the dead letters: into the entry of its key, or of the entry that it was
-- requeued from, else into a new one; gives back the entry's id, and keeps no such flag in it. The caller deletes the
-- row, and gives the attempts that did not complete (records), as backfill_attempt_records gives them.
create or replace function :"schema".backfill_bury(
  job_id bigint, task text, queue text, job_payload json, job_priority integer, key text, job_attempts integer,
  job_max_attempts integer, job_flags jsonb, job_created_at timestamptz, job_run_at timestamptz, error text, reason text,
  records json
) returns bigint
language plpgsql volatile
as $$
declare
  held jsonb := coalesce(:"schema".backfill_jsonb(job_payload), to_jsonb(job_payload::text));
  whole json := case when :"schema".backfill_jsonb(job_payload) is null then job_payload end;
  marks text[];
  entry bigint;
begin
  select array_agg(flag) into marks
  from jsonb_object_keys(case when jsonb_typeof(job_flags) = 'object' then job_flags else '{}' end) as flag
  where starts_with(flag, 'backfill.dead_letter:');
  if marks is not null then
    job_flags := nullif(job_flags - marks, '{}');
  end if;
  for round in 1..100 loop
    if key is not null then
      select id into entry from :"schema".backfill_dlq where job_key = key for update;
    elsif marks is not null then
      select id into entry
      from :"schema".backfill_dlq
      where id = any(array(
          select split_part(mark, ':', 2)::bigint from unnest(marks) as mark where mark ~ '^[^:]*:[0-9]{1,18}$'
        ))
        and job_key is null
        and requeued_job_id = job_id
      for update;
    end if;
    if entry is not null then
      update :"schema".backfill_dlq as old
      set
        earlier = (
          select jsonb_agg(item order by place)
          from (
            select item, place
            from jsonb_array_elements(
              jsonb_build_array(jsonb_build_object(
                'original_job_id', old.original_job_id, 'task_identifier', old.task_identifier, 'payload', old.payload,
                'queue_name', old.queue_name, 'priority', old.priority, 'attempts', old.attempts,
                'max_attempts', old.max_attempts, 'flags', old.flags, 'original_created_at', old.original_created_at,
                'original_run_at', old.original_run_at, 'failed_at', old.failed_at,
                'failure_reason', old.failure_reason, 'last_error', old.last_error
              )) || old.earlier
            ) with ordinality as items (item, place)
            limit 10
          ) as newest
        ),
        original_job_id = job_id, task_identifier = task, payload = held, payload_json = whole,
        queue_name = coalesce(queue, ''), priority = job_priority, attempts = job_attempts,
        max_attempts = job_max_attempts, flags = job_flags, original_created_at = job_created_at,
        original_run_at = job_run_at, failed_at = now(), failure_reason = reason, last_error = to_jsonb(error),
        failure_count = old.failure_count + 1, requeued_job_id = null, attempt_records = records
      where old.id = entry;
      return entry;
    end if;
    insert into :"schema".backfill_dlq (
      original_job_id, task_identifier, payload, payload_json, queue_name, priority, job_key, attempts, max_attempts, flags,
      original_created_at, original_run_at, failure_reason, last_error, attempt_records
    ) values (
      job_id, task, held, whole, coalesce(queue, ''), job_priority, key, job_attempts, job_max_attempts, job_flags,
      job_created_at, job_run_at, reason, to_jsonb(error), records
    )
    on conflict (job_key) where job_key is not null do nothing
    returning id into entry;
    if entry is not null then
      return entry;
    end if;
  end loop;
  raise exception 'job % can neither renew its dead letter nor make one; a trigger or row level security may forbid it', job_id
    using errcode = 'insufficient_privilege';
end;
$$;

create or replace function :"schema".backfill_bury(
  job_id bigint, task text, queue text, job_payload json, job_priority integer, key text, job_attempts integer,
  job_max_attempts integer, job_flags jsonb, job_created_at timestamptz, job_run_at timestamptz, error text, reason text
) returns bigint
language sql volatile
as $$
  select :"schema".backfill_bury(
    job_id, task, queue, job_payload, job_priority, key, job_attempts, job_max_attempts, job_flags, job_created_at,
    job_run_at, error, reason, null::json
  )
$$;
