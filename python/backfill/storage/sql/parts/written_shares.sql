-- The first of the claimed jobs, in the order of the contract, get the slots that were locked for them; and where there is a
-- rate, the time of the next start moves by as many starts as there are jobs.
, placed as materialized (
  select
    count(*) as jobs,
    array_agg(claimed.id order by claimed.priority, claimed.run_at, claimed.id) as ids,
    array_agg(claimed.attempts order by claimed.priority, claimed.run_at, claimed.id) as attempts
  from claimed
),
shared as (
  update :"schema".backfill_shares as shares
  set
    job_id = placed.ids[array_position(current_setting('backfill.slots')::tid[], shares.ctid)],
    attempt = placed.attempts[array_position(current_setting('backfill.slots')::tid[], shares.ctid)],
    worker = $1::text, locked_at = now(), turn = shares.turn + 1
  from placed
  where shares.ctid = any (current_setting('backfill.slots')::tid[])
    and array_position(current_setting('backfill.slots')::tid[], shares.ctid) <= placed.jobs
),
clocked as (
  update :"schema".backfill_limit_states as states
  set next_at = timestamptz 'epoch' + interval '1 microsecond' * (
    current_setting('backfill.clock')::double precision + current_setting('backfill.step')::double precision * placed.jobs
  )
  from placed
  where states.ctid = any (current_setting('backfill.state')::tid[])
    and placed.jobs > 0
)
