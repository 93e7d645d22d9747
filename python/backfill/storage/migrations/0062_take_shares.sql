-- does: Makes the functions by which a worker takes shares of a limit: for one value, and for the jobs that have none.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Takes shares of one value for `wanted` jobs at most: locks free slots where only so many jobs may run at once, and the limit's
-- state where there is a rate. `first` and `step` are in microseconds from now, `clock` is the time of the first start.
-- Each statement in here has a snapshot of its own: at read committed a volatile function sees what was committed before each
-- of them. At another level it would not see behind a lock what others did before that, so it refuses to run there.
create function :"schema".backfill_take_value(
  held :"schema".backfill_limits, of_value text, wanted integer,
  out granted integer, out places tid[], out numbers integer[], out state tid, out clock bigint,
  out first double precision, out step double precision, out wait double precision, out is_full boolean, out is_busy boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  at timestamptz := clock_timestamp();
  newest timestamptz;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'shares are taken at read committed, not at %', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state';
  end if;
  granted := wanted;
  is_full := false;
  is_busy := false;
  if held.rate_count is not null then
    newest := (
      select states.next_at
      from :"schema".backfill_limit_states as states
      where states.task = held.task collate "default" and states.value collate "C" = of_value
      order by states.next_at desc
      limit 1
    );
    select least(wanted, rate.room), case when rate.room = 0 then rate.first / 1000000 - 0.1 end into granted, wait
    from :"schema".backfill_rate_room(coalesce(newest, '2000-01-01Z'), at, held.rate_count, held.rate_micros, held.burst) as rate;
  end if;
  if held.most is not null and granted > 0 then
    select locked.places, locked.numbers, locked.busy into places, numbers, is_busy
    from :"schema".backfill_lock_slots(held.task, of_value, held.most, granted) as locked;
    is_full := cardinality(places) < granted and not is_busy;
    granted := cardinality(places);
  end if;
  if held.rate_count is not null and granted > 0 then
    select locked.place, locked.clock into state, newest from :"schema".backfill_lock_state(held.task, of_value) as locked;
    is_busy := is_busy or state is null;
    at := clock_timestamp();
    select case when state is null then 0 else least(granted, rate.room) end, rate.first, rate.step into granted, first, step
    from :"schema".backfill_rate_room(newest, at, held.rate_count, held.rate_micros, held.burst) as rate;
    wait := case when not is_full and not is_busy then greatest((first + granted * step) / 1000000 - 0.1, 0) end;
    clock := extract(epoch from at) * 1000000 + first;
  end if;
end;
$body$;

-- Takes shares for the jobs that have no value. The caller's claim follows in the same transaction. Settings tell it how many
-- jobs it may claim, where it writes those with a share, and from when the time of the next start goes on.
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
  closed boolean;
  took record;
begin
  select * into held from :"schema".backfill_limits as limits where limits.task = of_task;
  is_stale := not found or held.by_path is distinct from of_by;
  closed := coalesce(held.closed_until > clock_timestamp(), false);
  select * into took
  from :"schema".backfill_take_value(held, '', case when is_stale or closed then 0 else wanted end) as value;
  granted := took.granted;
  wait := case when closed then extract(epoch from held.closed_until - clock_timestamp()) else took.wait end;
  is_full := took.is_full;
  is_busy := took.is_busy;
  first_start := took.first / 1000000;
  step := took.step / 1000000;
  slots := took.numbers[1:granted]::text;
  if is_stale or held.probing or held.rate_count is not null then
    ahead := 0;
  end if;
  perform
    set_config('backfill.quota', (granted + ahead)::text, true),
    set_config('backfill.slots', coalesce(took.places[1:granted], '{}')::text, true),
    set_config('backfill.state', (case when granted > 0 and took.state is not null then array[took.state] else '{}' end)::text, true),
    set_config('backfill.clock', coalesce(took.clock, 0)::text, true), set_config('backfill.step', coalesce(took.step, 0)::text, true),
    set_config('backfill.queues', '{}', true), set_config('backfill.hidden', 'false', true);
end;
$body$;

revoke execute on function :"schema".backfill_take_value(:"schema".backfill_limits, text, integer) from public;
revoke execute on function :"schema".backfill_take_shares(text, text, integer, integer) from public;
