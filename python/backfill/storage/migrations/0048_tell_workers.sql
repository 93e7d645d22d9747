-- does: Makes the function that tells the fleet's workers to look at something again, through the table of control.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A worker hears of this by the notification, or else with its next heartbeat, whose answer shows that the rows of the
-- table are not the same as before. The row says nothing but what to look at, and it replaces the last row of that topic,
-- so the table does not grow. A row that another transaction is replacing at the moment is left to that transaction.
create function :"schema".backfill_tell_workers(topic text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  delete from :"schema".backfill_control as older
  where older.version = any (array(
      select control.version
      from :"schema".backfill_control as control
      where control.said = jsonb_build_object('look', topic)
      for update skip locked
    ));
  insert into :"schema".backfill_control (said, said_by) values (jsonb_build_object('look', topic), session_user);
  perform pg_notify('backfill:control', topic);
end;
$body$;

revoke execute on function :"schema".backfill_tell_workers(text) from public;
