-- does: Makes the table whose rows are locked by those who take turns at control and at limits, the function that locks them,
--   and the function by which an operator says something to the fleet.
-- foundation: no
-- transaction: yes
-- breaking: no

create table :"schema".backfill_turns (
  name text not null constraint backfill_turns_pkey primary key
);

alter table :"schema".backfill_turns enable row level security;

-- The states of limits are too many for a row each: their hashes share 1024 rows.
insert into :"schema".backfill_turns (name)
select unnest(array['control', 'counts', 'limits'])
union all
select 'state ' || number from generate_series(0, 1023) as number;

comment on table :"schema".backfill_turns is
  'A row for each thing at which transactions take turns. Roles lock them by functions only.';

-- Takes a turn until the transaction ends; says whether it did, which is always so where it may wait for others. Somebody
-- may have restored the schema without its rows; then it makes the row, and waits for whoever makes the same one just then.
create function :"schema".backfill_take_turn(of_what text, may_wait boolean default true) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if not exists (select from :"schema".backfill_turns as turns where turns.name = of_what) then
    insert into :"schema".backfill_turns (name) values (of_what) on conflict do nothing;
  end if;
  if may_wait then
    perform from :"schema".backfill_turns as turns where turns.name = of_what for update;
  else
    perform from :"schema".backfill_turns as turns where turns.name = of_what for update skip locked;
  end if;
  return found;
end;
$body$;

-- Says one thing of one subject to the fleet, and gives its row. What was said of the same kind and subject before is
-- replaced. All who change control take turns: what is worked out from several rows is then worked out from all of them.
create function :"schema".backfill_say(of_kind text, about text, what jsonb, author text default null, why text default null)
returns :"schema".backfill_control
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  row_said :"schema".backfill_control;
begin
  author := coalesce(author, session_user);
  why := coalesce(why, '');
  perform :"schema".backfill_check_control(of_kind, about, what, author, why);
  perform :"schema".backfill_take_turn('control');
  insert into :"schema".backfill_control as control (kind, subject, said, said_at, said_by, reason)
  values (of_kind, about, what, clock_timestamp(), author, why)
  on conflict (kind, subject) where kind is not null do update
  set
    version = default, said = excluded.said, said_at = excluded.said_at, said_by = excluded.said_by,
    reason = excluded.reason
  returning control.* into row_said;
  perform pg_notify('backfill:control', of_kind);
  return row_said;
end;
$body$;

revoke execute
on function
  :"schema".backfill_take_turn(text, boolean),
  :"schema".backfill_say(text, text, jsonb, text, text)
from public;
