-- does: Folds counts of a span that are over so many days old into the next coarser one, so many rows at most: they are deleted
--   and added to the coarser rows in one statement, so a reader sees them once. Says how many rows it took.
-- locks: backfill_counters rows (delete), skip locked: another worker folds those; coarser rows (insert, update) in the order of
--   their keys
-- index: backfill_counters_pkey
-- params: $1 span text, $2 coarser text, $3 by_worker boolean, $4 days integer, $5 wanted integer
with old as (
  select counters.ctid
  from :"schema".backfill_counters as counters
  where counters.span = $1::text
    and counters.started < date_trunc($2::text, now() - $4::integer * interval '1 day', 'UTC')
  order by counters.span, counters.started, counters.task, counters.worker
  limit $5::integer
  for update of counters skip locked
),
gone as (
  delete from :"schema".backfill_counters as counters
  where counters.ctid = any (array(select old.ctid from old))
  returning counters.*
),
sums as (
  select
    date_trunc($2::text, gone.started, 'UTC') as started,
    gone.task,
    case when $3::boolean then gone.worker else '' end as worker,
    sum(gone.done)::bigint as done,
    sum(gone.failed)::bigint as failed,
    sum(gone.retried)::bigint as retried,
    sum(gone.dead)::bigint as dead,
    sum(gone.snoozed)::bigint as snoozed,
    sum(gone.discarded)::bigint as discarded,
    sum(gone.given_back)::bigint as given_back,
    sum(gone.wait_seconds) as wait_seconds,
    sum(gone.run_seconds) as run_seconds,
    :"schema".backfill_sum(gone.wait) as wait,
    :"schema".backfill_sum(gone.run) as run
  from gone
  group by 1, 2, 3
),
folded as (
  insert into :"schema".backfill_counters as counters (
    span, started, task, worker, done, failed, retried, dead, snoozed, discarded, given_back,
    wait_seconds, run_seconds, wait, run
  )
  select
    $2::text, started, task, worker, done, failed, retried, dead, snoozed, discarded, given_back,
    wait_seconds, run_seconds, wait, run
  from sums
  order by started, task, worker
  on conflict (span, started, task, worker) do update
  set
    done = counters.done + excluded.done,
    failed = counters.failed + excluded.failed,
    retried = counters.retried + excluded.retried,
    dead = counters.dead + excluded.dead,
    snoozed = counters.snoozed + excluded.snoozed,
    discarded = counters.discarded + excluded.discarded,
    given_back = counters.given_back + excluded.given_back,
    wait_seconds = counters.wait_seconds + excluded.wait_seconds,
    run_seconds = counters.run_seconds + excluded.run_seconds,
    wait = :"schema".backfill_add(counters.wait, excluded.wait),
    run = :"schema".backfill_add(counters.run, excluded.run)
)
select count(*) as taken
from gone
