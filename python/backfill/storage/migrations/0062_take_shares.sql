-- does: Makes the function by which a worker takes shares of a limit for jobs that have no value.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Takes shares for `wanted` jobs at most. Its caller's claim follows in the same transaction. It is told by settings how many
-- jobs it may claim, and writes what it claims into the slots, and the time of the next start into the limit's state.
--
-- Every statement in here has a snapshot of its own: at read committed a volatile function sees what was committed before
-- each of them. At another level it would see nothing new behind a lock, so it refuses to run there.
create function :"schema".backfill_take_shares(
  of_task text, of_by text, wanted integer, ahead integer,
  out granted integer, out wait double precision, out is_full boolean, out is_busy boolean, out is_stale boolean,
  out first_start double precision, out step double precision, out slots text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  held :"schema".backfill_limits;
  newest timestamptz;
  at timestamptz := clock_timestamp();
  first double precision;
  state tid;
  clock bigint := 0;
  places tid[] := '{}';
  numbers integer[] := '{}';
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'shares are taken at read committed, not at %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  select * into held from :"schema".backfill_limits as limits where limits.task = of_task;
  is_stale := not found or held.by_path is distinct from of_by;
  is_full := false;
  is_busy := false;
  granted := wanted;
  if is_stale then
    granted := 0;
  elsif held.closed_until > at then
    wait := extract(epoch from held.closed_until - at);
    granted := 0;
  elsif held.rate_count is not null then
    newest := (
      select states.next_at
      from :"schema".backfill_limit_states as states
      where states.task = of_task and states.value collate "C" = ''
      order by states.next_at desc
      limit 1
    );
    select least(wanted, rate.room), greatest(rate.first / 1000000 - 0.1, 0) into granted, wait
    from :"schema".backfill_rate_room(coalesce(newest, at), at, held.rate_count, held.rate_micros, held.burst) as rate;
  end if;
  if held.most is not null and granted > 0 then
    select locked.places, locked.numbers, locked.busy into places, numbers, is_busy
    from :"schema".backfill_lock_slots(of_task, '', held.most, granted) as locked;
    is_full := cardinality(places) < granted and not is_busy;
    granted := cardinality(places);
  end if;
  if held.rate_count is not null and granted > 0 then
    select locked.place, locked.clock into state, newest from :"schema".backfill_lock_state(of_task, '') as locked;
    is_busy := state is null;
    at := clock_timestamp();
    select case when is_busy then 0 else least(granted, rate.room) end, rate.first, rate.step into granted, first, step
    from :"schema".backfill_rate_room(newest, at, held.rate_count, held.rate_micros, held.burst) as rate;
    wait := case when not is_busy then greatest((first + granted * step) / 1000000 - 0.1, 0) end;
    clock := extract(epoch from at) * 1000000 + first;
  end if;
  first_start := first / 1000000;
  slots := numbers[1:granted]::text;
  if is_stale or held.closed_until > at or held.probing or held.rate_count is not null then
    ahead := 0;
  end if;
  perform
    set_config('backfill.quota', (granted + ahead)::text, true),
    set_config('backfill.slots', places[1:granted]::text, true),
    set_config('backfill.state', (case when granted > 0 and state is not null then array[state] else '{}' end)::text, true),
    set_config('backfill.clock', clock::text, true),
    set_config('backfill.step', coalesce(step, 0)::text, true),
    set_config('backfill.queues', '{}', true),
    set_config('backfill.hidden', 'false', true);
  step := step / 1000000;
end;
$body$;

revoke execute on function :"schema".backfill_take_shares(text, text, integer, integer) from public;
