-- does: Makes the function by which an operator says something to the fleet.
-- foundation: no
-- transaction: yes
-- breaking: no

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
  perform pg_advisory_xact_lock(hashtextextended('backfill_control', pg_typeof(row_said)::oid::bigint));
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

revoke execute on function :"schema".backfill_say(text, text, jsonb, text, text) from public;
