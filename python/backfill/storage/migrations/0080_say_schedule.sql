-- does: Makes the function by which operators say something of a recurring item.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Says one thing of an item (`doing` is add, change, pause, resume, remove or reset), and gives its row as it stands then; for
-- reset as it stood. It gives no row where there is nothing to do: what is to be added is there, what is to be changed or
-- paused was removed, what is to be resumed is not paused, and so on. `wait` says nothing and gives no row: what is read after
-- it is changed by nobody else before this is committed.
-- All take turns, so that revisions are committed in their order. The item's row in the table of all schedulers is locked, but
-- only against our own schedulers, which lock it for update: a run that is being added is waited for, and none follows before
-- this is committed. A scheduler of Node, which writes that row but not its key, neither waits nor is waited for.
-- A row that says nothing any more stays until its item has run since, so that the runs of the meantime are not made up for.
create function :"schema".backfill_say_schedule(
  item text, doing text, new_line text default null, author text default null, at timestamptz default null
) returns setof :"schema".backfill_schedules
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  said :"schema".backfill_schedules;
  stood :"schema".backfill_schedules;
begin
  author := coalesce(author, session_user);
  if item is null or length(item) not between 1 and 128 then
    raise exception 'identifier: expected 1 to 128 characters' using errcode = 'invalid_parameter_value';
  elsif coalesce(doing not in ('add', 'change', 'pause', 'resume', 'remove', 'reset', 'wait'), true) then
    raise exception 'doing = %: expected add, change, pause, resume, remove, reset or wait', doing
      using errcode = 'invalid_parameter_value';
  elsif (doing in ('add', 'change')) <> (new_line is not null) or length(new_line) not between 1 and 1000000 then
    raise exception 'line: expected one of 1 to 1000000 characters to add or to change, and none otherwise'
      using errcode = 'invalid_parameter_value';
  elsif length(author) not between 1 and 200 then
    raise exception 'author: one of % characters, expected 1 to 200', length(author) using errcode = 'invalid_parameter_value';
  end if;
  perform :"schema".backfill_take_turn('schedules');
  for round in 1..2 loop
    perform from :"schema"._private_known_crontabs as known where known.identifier = any (array[item]) for key share;
    exit when found;
    insert into :"schema"._private_known_crontabs (identifier, known_since)
    values (item, coalesce(at, clock_timestamp()))
    on conflict do nothing;
  end loop;
  at := coalesce(at, clock_timestamp());
  select * into stood from :"schema".backfill_schedules as schedules where schedules.identifier = item;
  said := stood;
  if doing = 'add' and (stood.line is null or stood.removed_at is not null) then
    said.is_added := true;
    said.line := new_line;
    said.paused_at := null;
    said.removed_at := null;
  elsif doing = 'change' and stood.removed_at is null then
    said.line := new_line;
  elsif doing = 'pause' and stood.removed_at is null then
    said.paused_at := coalesce(stood.paused_at, at);
    said.paused_by := coalesce(stood.paused_by, author);
  elsif doing = 'resume' and stood.paused_at is not null and stood.removed_at is null then
    said.paused_at := null;
  elsif doing = 'remove' and stood.removed_at is null and (
    not coalesce(stood.is_added, false)
    or exists (select from :"schema".backfill_crontabs as crontabs where crontabs.items ? item)
  ) then
    said.removed_at := at;
  elsif (doing = 'remove' and stood.removed_at is null)
    or (doing = 'reset' and (stood.line is not null or stood.paused_at is not null or stood.removed_at is not null))
  then
    said := null;
  else
    return;
  end if;
  insert into :"schema".backfill_schedules as schedules (
    identifier, line, is_added, paused_at, paused_by, removed_at, since, said_by, said_at
  )
  values (
    item, said.line, coalesce(said.is_added, false), said.paused_at, case when said.paused_at is not null then said.paused_by end,
    said.removed_at, case when doing = 'pause' then stood.since else at end, author, at
  )
  on conflict (identifier) do update
  set
    line = excluded.line, is_added = excluded.is_added, paused_at = excluded.paused_at, paused_by = excluded.paused_by,
    removed_at = excluded.removed_at, since = excluded.since, said_by = excluded.said_by, said_at = excluded.said_at,
    revision = default
  returning schedules.* into said;
  delete from :"schema".backfill_schedules as silent
  where silent.line is null and silent.paused_at is null and silent.removed_at is null and silent.identifier <> item
    and silent.since <= (
      select known.last_execution
      from :"schema"._private_known_crontabs as known
      where known.identifier = any (array[silent.identifier]) -- no equality: the planner could begin with all items
    );
  perform :"schema".backfill_tell_workers('schedules');
  return next case when doing = 'reset' then stood else said end;
end;
$body$;

revoke execute on function :"schema".backfill_say_schedule(text, text, text, text, timestamptz) from public;
