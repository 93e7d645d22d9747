-- does: Makes the function that locks what a limit has reached.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Locks the row of what a limit has reached; where there is none, it makes one, as if nothing had started for a year. It gives
-- no place where somebody else has the row locked, or has just changed it. Nobody waits here: who makes a row holds a lock
-- until the transaction ends, and others give way.
create function :"schema".backfill_lock_state(
  of_task text, of_value text, out place tid, out clock timestamptz, out made integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  newest tid;
begin
  for attempt in 1..2 loop
    select states.ctid into newest
    from :"schema".backfill_limit_states as states
    where states.task = of_task and states.value collate "C" = of_value
    order by states.next_at desc
    limit 1;
    if found then
      select states.ctid, states.next_at, states.slots into place, clock, made
      from :"schema".backfill_limit_states as states
      where states.ctid = any (array[newest])
      for update skip locked;
      return;
    elsif attempt = 2 then -- nobody else can have made it since the lock was taken
      insert into :"schema".backfill_limit_states as states (task, value, next_at)
      values (of_task, of_value, clock_timestamp() - interval '366 days')
      returning states.ctid, states.next_at, states.slots into place, clock, made;
    end if;
    exit when not pg_try_advisory_xact_lock(
      hashtextextended(of_task || chr(10) || of_value, pg_typeof(null:::"schema".backfill_limit_states)::oid::bigint)
    );
  end loop;
end;
$body$;

revoke execute on function :"schema".backfill_lock_state(text, text) from public;
