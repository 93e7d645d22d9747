-- does: Takes the functions for attempts from the public. Gives them, and the table of attempts, to the roles that have a
--   worker's printed grants already: programs of this version, and of the one before, work before those are run again. The
--   function that buries jobs is given too, since an owner's default privileges may keep new functions from the public.
-- foundation: no
-- transaction: yes
-- breaking: no

revoke execute
on function
  :"schema".backfill_attempt_record(integer, text, text, timestamptz, text, text, text),
  :"schema".backfill_attempt_records(bigint, json)
from public;

do $body$
declare
  jobs regclass := pg_typeof(null:::"schema"._private_jobs)::text::regclass;
  attempts regclass := pg_typeof(null:::"schema".backfill_attempts)::text::regclass;
  granted record;
begin
  for granted in
    select policies.polname as policy, pg_get_userbyid(one) as name
    from pg_policy as policies
    cross join unnest(policies.polroles) as one
    where policies.polrelid = jobs
      and one <> 0
      and policies.polname ~ '^backfill_worker_'
  loop
    execute format('grant select, insert, delete on %s to %I', attempts, granted.name);
    execute format('drop policy if exists %I on %s', granted.policy, attempts);
    execute format('create policy %I on %s to %I using (true) with check (true)', granted.policy, attempts, granted.name);
    execute format(
      'grant execute on function
        %1$s.backfill_attempt_record(integer, text, text, timestamptz, text, text, text),
        %1$s.backfill_attempt_records(bigint, json),
        %1$s.backfill_bury(
          bigint, text, text, json, integer, text, integer, integer, jsonb, timestamptz, timestamptz, text, text, json
        )
      to %2$I',
      (select relnamespace from pg_class where oid = jobs)::regnamespace, granted.name
    );
  end loop;
end;
$body$;
