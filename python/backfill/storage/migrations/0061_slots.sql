-- does: Makes the function that locks free slots of a limit.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Locks free slots of a value, `wanted` at most, and returns them. Those that somebody else has locked are passed over, which
-- `busy` tells where too few are left.
-- A slot is free while its job is not locked by its worker. One snapshot shows that, and another one shows it again when the
-- slot is locked: then nobody else can take it. So those who take slots need not take turns.
-- Slots beyond `most` are left from before the limit was lowered. While jobs have such slots, as many free slots stay empty.
-- Each taker keeps that many locked for itself, so two takers cannot count the same ones.
-- A job that went back and was claimed again may stand in two slots. It has the first; the other is free.
create function :"schema".backfill_lock_slots(
  of_task text, of_value text, most integer, wanted integer, out places tid[], out numbers integer[], out busy boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  last integer := coalesce((
    select states.slots
    from :"schema".backfill_limit_states as states
    where states.task = of_task collate "default" and states.value collate "C" = of_value
    order by states.next_at desc
    limit 1
  ), 0);
  above integer;
  free tid[];
  twins tid[];
  held_jobs bigint[];
  holders text[];
  missing integer;
  state record;
begin
  select
    count(*) filter (where seen.slot > most and seen.is_held and seen.turn = 1),
    coalesce(array_agg(seen.place) filter (where seen.slot <= most and not (seen.is_held and seen.turn = 1)), '{}'),
    coalesce(array_agg(seen.place) filter (where seen.is_held and seen.turn > 1), '{}')
  into above, free, twins
  from (
    select
      newest.*, row_number() over (partition by newest.job_id, newest.worker order by newest.slot) as turn,
      exists (
        select from :"schema"._private_jobs as jobs
        where jobs.id = any (array[newest.job_id]) and coalesce(jobs.locked_by = newest.worker, false)
      ) as is_held
    from generate_series(1, last) as number
    cross join lateral (
      select shares.ctid as place, shares.slot, shares.job_id, shares.worker
      from :"schema".backfill_shares as shares
      where shares.task = of_task collate "default" and shares.value collate "C" = of_value and shares.slot = number
      order by shares.turn desc
      limit 1
    ) as newest
  ) as seen;
  if free <> '{}' then
    select array_agg(locked.place), array_agg(locked.slot), array_agg(locked.job_id), array_agg(locked.worker)
    into places, numbers, held_jobs, holders
    from (
      select shares.ctid as place, shares.slot, shares.job_id, shares.worker
      from :"schema".backfill_shares as shares
      where shares.ctid = any (free)
      order by shares.slot
      limit wanted + above
      for update skip locked
    ) as locked;
    select array_agg(locked.place order by locked.slot), array_agg(locked.slot order by locked.slot)
    into places, numbers
    from unnest(places, numbers, held_jobs, holders) as locked (place, slot, job_id, worker)
    where locked.place = any (twins)
      or not exists (
        select from :"schema"._private_jobs as jobs
        where jobs.id = any (array[locked.job_id]) and coalesce(jobs.locked_by = locked.worker, false)
      );
  end if;
  missing := least(wanted + above - coalesce(cardinality(places), 0), most - last);
  if missing > 0 then
    select * into state from :"schema".backfill_lock_state(of_task, of_value) as locked;
    missing := case when state.place is null then 0 else least(missing, most - state.made) end;
    if missing > 0 then
      with added as (
        insert into :"schema".backfill_shares as shares (task, value, slot, turn, job_id, worker, attempt)
        select of_task, of_value, state.made + number, (extract(epoch from clock_timestamp()) * 1000000)::bigint, 0, '', 0
        from generate_series(1, missing) as number
        returning shares.ctid, shares.slot
      )
      select places || array_agg(added.ctid), numbers || array_agg(added.slot) into places, numbers from added;
      last := state.made + missing;
      update :"schema".backfill_limit_states as states set slots = last where states.ctid = any (array[state.place]);
    end if;
  end if;
  missing := coalesce(cardinality(places), 0) - above;
  busy := missing < wanted and (cardinality(free) > missing + above or last < most);
  places := coalesce(places[1:greatest(least(missing, wanted), 0)], '{}');
  numbers := coalesce(numbers[1:cardinality(places)], '{}');
end;
$body$;

revoke execute on function :"schema".backfill_lock_slots(text, text, integer, integer) from public;
