-- does: Makes the function by which a scheduler adds the jobs of recurring items' runs.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Adds the jobs of runs that nobody has done, and advances their items. Of each run it gives its place in the array, what was
-- done (added, overlapped, refused: without a task, taken, stale, busy, unknown) and the job's id. Runs of an item come one
-- after the other, oldest first: the second, if jobs must not overlap, finds the first one's job. New tasks and queues are made
-- in the order of their names, and jobs with keys are added in that of their keys, as other producers do, so that none waits
-- in a ring. Users' triggers may need the caller's search_path.
create function :"schema".backfill_add_runs(runs json) returns table (place bigint, outcome text, job_id bigint)
language plpgsql volatile
as $body$
#variable_conflict use_column
declare
  line record;
  item text;
  reached timestamptz;
  is_open boolean;
  has_names boolean := false;
  done_items text[] := '{}';
  done_runs timestamptz[] := '{}';
  done_jobs bigint[] := '{}';
begin
  for line in
    with wanted as materialized (
      select
        given.place, given.run -> 'payload' as payload, given.run ->> 'task' as task, given.run ->> 'queue' as queue,
        given.run ->> 'identifier' as identifier, (given.run ->> 'run')::timestamptz as run,
        (given.run ->> 'revision')::bigint as revision, (given.run ->> 'overlap_skip')::boolean as is_alone,
        (given.run ->> 'run_at')::timestamptz as run_at, (given.run ->> 'max_attempts')::integer as max_attempts,
        (given.run ->> 'priority')::integer as priority, given.run ->> 'job_key' as job_key,
        given.run ->> 'job_key_mode' as job_key_mode, array(select json_array_elements_text(given.run -> 'flags')) as flags
      from json_array_elements(runs) with ordinality as given (run, place)
    )
    select
      wanted.*, held.reached, held.is_open, held.identifier is null as is_missing,
      held.is_off or held.revision <> wanted.revision as is_stale
    from wanted
    left join :"schema".backfill_lock_schedules(
      array(select distinct all_of_them.identifier from wanted as all_of_them),
      array(select distinct all_of_them.identifier from wanted as all_of_them where all_of_them.is_alone)
    ) as held on held.identifier = wanted.identifier
    order by
      min(coalesce(wanted.job_key, '') collate "C") over (partition by wanted.identifier), wanted.identifier collate "C", wanted.run
  loop
    if line.identifier is distinct from item then
      item := line.identifier;
      reached := line.reached;
      is_open := line.is_open;
    end if;
    place := line.place;
    job_id := null;
    outcome := case
      when line.is_missing and exists (
        select from :"schema"._private_known_crontabs as known where known.identifier = any (array[item])
      ) then 'busy'
      when line.is_missing then 'unknown'
      when line.run <= reached then 'taken'
      when line.is_stale then 'stale'
      when line.task is null then 'refused'
      when is_open and line.is_alone then 'overlapped'
      else 'added'
    end;
    if outcome = 'added' and not has_names then
      perform :"schema".backfill_have_names(
        array(select given.run ->> 'task' from json_array_elements(runs) as given (run) where given.run ->> 'task' <> ''),
        array(select given.run ->> 'queue' from json_array_elements(runs) as given (run))
      );
      has_names := true;
    end if;
    if outcome = 'added' then
      for round in 1..10 loop
        select added.id into job_id
        from :"schema".add_job(
          line.task, line.payload, line.queue, line.run_at, line.max_attempts, line.job_key, line.priority,
          nullif(line.flags, '{}'), coalesce(line.job_key_mode, 'replace')
        ) as added;
        exit when job_id is not null;
      end loop;
      if job_id is null then
        raise exception 'a job of the key % was replaced by others ten times', line.job_key
          using errcode = 'serialization_failure';
      end if;
      is_open := true;
    end if;
    if outcome in ('added', 'overlapped', 'refused') then
      reached := line.run;
      done_items := done_items || item;
      done_runs := done_runs || reached;
      done_jobs := done_jobs || job_id;
    end if;
    return next;
  end loop;
  perform :"schema".backfill_note_runs(done_items, done_runs, done_jobs);
end;
$body$;

revoke execute on function :"schema".backfill_add_runs(json) from public;
