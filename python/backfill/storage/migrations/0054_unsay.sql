-- does: Makes the functions by which something that was said to the fleet is undone.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Undoes what is said of a kind and a subject, and gives the row that stood; no row if nothing is said of it.
create function :"schema".backfill_unsay(of_kind text, about text) returns setof :"schema".backfill_control
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  row_said :"schema".backfill_control;
begin
  perform :"schema".backfill_take_turn('control');
  delete from :"schema".backfill_control as control
  where control.kind = of_kind
    and control.subject = about
  returning control.* into row_said;
  if found then
    perform pg_notify('backfill:control', row_said.kind);
    return next row_said;
  end if;
end;
$body$;

-- Undoes what is said, by its version, and gives its row; no row if that version does not stand any more.
create function :"schema".backfill_unsay(standing bigint) returns setof :"schema".backfill_control
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  row_said :"schema".backfill_control;
begin
  perform :"schema".backfill_take_turn('control');
  delete from :"schema".backfill_control as control
  where control.version = standing
    and control.kind is not null
  returning control.* into row_said;
  if found then
    perform pg_notify('backfill:control', row_said.kind);
    return next row_said;
  end if;
end;
$body$;

revoke execute
on function
  :"schema".backfill_unsay(text, text),
  :"schema".backfill_unsay(bigint)
from public;
