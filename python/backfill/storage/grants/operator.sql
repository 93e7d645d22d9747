-- What a role needs to say to the fleet what may run, to undo it, to list it, and to ask what holds a job back. It reads no
-- payload and no error, and it changes no row of the queue: functions that belong to the role that migrates do that for it.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".backfill_migrations to :"role";
grant select on :"schema".backfill_control to :"role";
grant execute
on function
  :"schema".backfill_say(text, text, jsonb, text, text),
  :"schema".backfill_unsay(text, text),
  :"schema".backfill_unsay(bigint)
to :"role";

drop policy if exists :"policy" on :"schema".backfill_control;
create policy :"policy" on :"schema".backfill_control for select to :"role" using (true);
