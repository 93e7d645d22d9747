-- does: Makes the function that locks what a limit has reached.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Locks the row of what a limit has reached; where there is none, it makes one, as if nothing had started for a year. It gives
-- no place where somebody else has the row locked, or has just changed it. Nobody waits here: who makes a row has the turn at
-- it until the transaction ends, and others give way. Several values share a turn, so now and then they give way needlessly.
create function :"schema".backfill_lock_state(
  of_task text, of_value text, out place tid, out clock timestamptz, out made integer
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  newest tid;
begin
  for attempt in 1..2 loop
    select states.ctid into newest
    from :"schema".backfill_limit_states as states
    where states.task = of_task collate "default" and states.value collate "C" = of_value
    order by states.next_at desc
    limit 1;
    if found then
      select states.ctid, states.next_at, states.slots into place, clock, made
      from :"schema".backfill_limit_states as states
      where states.ctid = any (array[newest])
      for update skip locked;
      return;
    elsif attempt = 2 then -- nobody else can have made it since the turn was taken
      insert into :"schema".backfill_limit_states as states (task, value, next_at)
      values (of_task, of_value, clock_timestamp() - interval '366 days')
      returning states.ctid, states.next_at, states.slots into place, clock, made;
    end if;
    exit when not :"schema".backfill_take_turn(
      'state ' || (hashtextextended(of_task || chr(10) || of_value, 0) & 1023), false
    );
  end loop;
end;
$body$;

revoke execute on function :"schema".backfill_lock_state(text, text) from public;
