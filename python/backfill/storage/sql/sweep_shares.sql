-- does: Deletes what a limit has reached for values of which no job runs and whose rate has forgotten the last start, with their
--   slots; and, where a limit was lowered, the slots beyond it, once none of them is taken. Says of how many values.
-- locks: backfill_limit_states and backfill_shares rows for update, skip locked, then deleted
-- index: none: it goes through all values of all limits
-- params: $1 most integer (values at once)
-- A slot that changes after it was seen has another turn, and is then left alone with all the others of its value.
with seen as materialized (
  select
    states.ctid as place, states.task, states.value, states.slots, states.next_at,
    case when mine.is_busy then limits.most else 0 end as keep
  from :"schema".backfill_limit_states as states
  left join :"schema".backfill_limits as limits on limits.task = states.task
  cross join lateral (
    select exists (
      select
      from :"schema".backfill_shares as shares
      join :"schema"._private_jobs as jobs on jobs.id = any (array[shares.job_id])
      where shares.task = states.task
        and shares.value collate "C" = states.value
        and coalesce(jobs.locked_by = shares.worker, false)
    ) or states.next_at > now() - interval '1 minute' - coalesce(
      limits.burst * limits.rate_micros / limits.rate_count * interval '1 microsecond', interval '0'
    ) as is_busy
  ) as mine
  where not mine.is_busy
    or states.slots > limits.most
  limit $1::integer
),
places as materialized (
  select shares.ctid as place, shares.turn, seen.place as state, coalesce(jobs.locked_by = shares.worker, false) as is_live
  from seen
  join :"schema".backfill_shares as shares
    on shares.task = seen.task and shares.value collate "C" = seen.value and shares.slot > seen.keep
  left join :"schema"._private_jobs as jobs on jobs.id = any (array[shares.job_id])
),
states_held as materialized (
  select seen.*
  from seen
  join :"schema".backfill_limit_states as states on states.ctid = seen.place
  where states.slots = seen.slots
    and states.next_at = seen.next_at
  for update of states skip locked
),
slots_held as materialized (
  select places.place, places.state
  from places
  join :"schema".backfill_shares as shares on shares.ctid = places.place
  where shares.turn = places.turn
    and not places.is_live
  for update of shares skip locked
),
over as materialized (
  select states_held.*
  from states_held
  where (select count(*) from slots_held where slots_held.state = states_held.place)
    = (select count(*) from places where places.state = states_held.place)
),
gone as (
  delete from :"schema".backfill_shares as shares
  where shares.ctid = any (array(select slots_held.place from slots_held join over on over.place = slots_held.state))
),
shortened as (
  update :"schema".backfill_limit_states as states
  set slots = over.keep
  from over
  where states.ctid = over.place and over.keep > 0
),
dropped as (
  delete from :"schema".backfill_limit_states as states
  where states.ctid = any (array(select over.place from over where over.keep = 0))
)
select count(*)::integer as swept
from over
