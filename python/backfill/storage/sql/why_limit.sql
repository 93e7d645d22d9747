-- does: Gives the limit that holds for a task and what it has reached for one value: how many jobs have a share, and the first
--   ones of them with their workers (JSON); and when the next job may start where there is a rate. No row: there is no limit.
--   Times are Unix microseconds.
-- locks: none
-- index: backfill_limits_pkey, backfill_limit_states_newest, backfill_shares_newest, jobs_pkey1
-- params: $1 task text, $2 value text, $3 holders integer (how many are named at most)
select
  limits.most, limits.by_path, limits.rate_count, limits.rate_micros, limits.burst, limits.probing, limits.source,
  (extract(epoch from limits.closed_until) * 1000000)::bigint as closed_until,
  coalesce(limits.closed_until > now(), false) as is_closed,
  case when isfinite(state.next_at) then (extract(epoch from state.next_at) * 1000000)::numeric(30) end as next_at,
  limits.rate_count is not null and coalesce(state.next_at > now(), false) as is_slowed,
  held.taken, held.holders
from :"schema".backfill_limits as limits
left join lateral (
  select states.next_at, states.slots
  from :"schema".backfill_limit_states as states
  where states.task = limits.task
    and states.value collate "C" = case when limits.by_path is null then '' else $2::text end
  order by states.next_at desc
  limit 1
) as state on true
left join lateral (
  select
    count(distinct live.id) as taken,
    (json_agg(json_build_object(
      'job', live.id, 'worker', live.locked_by,
      'since', case when isfinite(live.locked_at) then (extract(epoch from live.locked_at) * 1000000)::bigint end
    ) order by live.slot) filter (where live.slot_order <= $3::integer)) as holders
  from (
    select newest.slot, jobs.id, jobs.locked_by, jobs.locked_at, row_number() over (order by newest.slot) as slot_order
    from generate_series(1, state.slots) as number
    cross join lateral (
      select shares.slot, shares.job_id, shares.worker
      from :"schema".backfill_shares as shares
      where shares.task = limits.task
        and shares.value collate "C" = case when limits.by_path is null then '' else $2::text end
        and shares.slot = number
      order by shares.turn desc
      limit 1
    ) as newest
    cross join lateral (
      select held.id, held.locked_by, held.locked_at
      from :"schema"._private_jobs as held
      where held.id = any (array[newest.job_id])
        and coalesce(held.locked_by = newest.worker, false)
      order by held.id
      limit 1
    ) as jobs
  ) as live
) as held on limits.most is not null
where limits.task = any (array[$1::text])
