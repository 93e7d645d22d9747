-- does: Makes the table of when breakers closed, and the trigger that writes it; and the function that opens a task's breaker.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A breaker that is open stands in the table of control. Once it has closed, dead letters from before do not count any more.
create table :"schema".backfill_breakers (
  task text not null constraint backfill_breakers_pkey primary key,
  closed_at timestamptz not null
);

alter table :"schema".backfill_breakers enable row level security;

-- Notes when a breaker closes, whoever closes it. Dead letters count for a day at most, so older rows say nothing.
create function :"schema".backfill_note_closed_breaker() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  insert into :"schema".backfill_breakers as breakers (task, closed_at)
  values (substr(old.subject, length('task:') + 1), clock_timestamp())
  on conflict (task) do update set closed_at = excluded.closed_at;
  delete from :"schema".backfill_breakers as old_ones where old_ones.closed_at < now() - interval '7 days';
  return null;
end;
$body$;

create trigger _900_backfill_note_closed_breaker
after delete on :"schema".backfill_control
for each row when (old.kind = 'breaker') execute function :"schema".backfill_note_closed_breaker();

-- Opens the breaker of a task if it has had so many dead letters within a time (seconds), and gives the control that says so;
-- no row where it has fewer, or where the breaker is open. Workers call it after each dead letter: it waits for its turn only
-- where there are enough, and reads no more than those, by the index. Plans of forbidden kinds count as very dear, so that the
-- server would compile what is called from here, which takes seconds: hence no jit.
create function :"schema".backfill_trip_breaker(
  of_task text, names text[], dead_letters integer, within float8, pause float8, longest float8
) returns setof :"schema".backfill_control
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off set enable_seqscan = off set jit = off
as $body$
declare
  subject_said text := 'task:' || of_task;
  since timestamptz;
  counted bigint;
begin
  if not (dead_letters between 1 and 10000 and within > 0 and within <= 86400 and pause > 0 and pause <= longest and longest < 1e8) then
    raise exception 'dead_letters = %, within = %, pause = %, longest = %: values that no breaker has',
      dead_letters, within, pause, longest using errcode = 'invalid_parameter_value';
  end if;
  for round in 1..2 loop
    if exists (
      select from :"schema".backfill_control as control where control.kind = 'breaker' and control.subject = subject_said
    ) then
      return;
    end if;
    select greatest(clock_timestamp() - within * interval '1 second', max(breakers.closed_at)) into since
    from :"schema".backfill_breakers as breakers
    where breakers.task = of_task;
    -- An entry that several jobs of one key have renewed counts for each of them.
    select sum(entries.failures) into counted
    from unnest(names) as named (task)
    cross join lateral (
      select
        1 + (
          select count(*)
          from jsonb_array_elements(entry.earlier) as before
          where (before ->> 'failed_at')::timestamptz > since
        ) as failures
      from :"schema".backfill_dlq as entry
      -- Compared as rows, so that only the index that begins with the task can be read.
      where (entry.task_identifier, entry.failed_at) > (named.task, since)
        and entry.task_identifier <= named.task
      limit dead_letters
    ) as entries;
    if counted is null or counted < dead_letters then
      return;
    elsif round = 1 then
      perform :"schema".backfill_take_turn('control');
    end if;
  end loop;
  return next :"schema".backfill_say(
    'breaker', subject_said,
    jsonb_build_object(
      'trips', 1, 'until', clock_timestamp() + pause * interval '1 second', 'pause', pause, 'longest', longest
    ),
    'breaker', format('%s dead letters within %s s', counted, within)
  );
end;
$body$;

revoke execute
on function
  :"schema".backfill_note_closed_breaker(),
  :"schema".backfill_trip_breaker(text, text[], integer, double precision, double precision, double precision)
from public;
