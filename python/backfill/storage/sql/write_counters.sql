-- does: Writes a worker's counts of some minutes as they stand. What is written again, or comes late after a lost answer, has
--   no more than the row and changes nothing. Gives the time in Unix microseconds, by which the worker tells minutes apart.
-- locks: backfill_counters rows (insert, update) in the order of their keys; a worker's minutes are written by nobody else
-- index: backfill_counters_pkey
-- params: $1 worker text, $2 counts json
with written as (
  insert into :"schema".backfill_counters as counters (
    span, started, task, worker, done, failed, retried, dead, snoozed, discarded, given_back,
    wait_seconds, run_seconds, wait, run
  )
  select
    'minute', to_timestamp(counts.minute * 60), counts.task, $1::text, counts.done, counts.failed, counts.retried,
    counts.dead, counts.snoozed, counts.discarded, counts.given_back,
    counts.wait_seconds, counts.run_seconds, counts.wait, counts.run
  from json_to_recordset($2::json) as counts (
    minute bigint, task text, done bigint, failed bigint, retried bigint, dead bigint, snoozed bigint, discarded bigint,
    given_back bigint, wait_seconds double precision, run_seconds double precision, wait bigint[], run bigint[]
  )
  order by counts.minute, counts.task
  on conflict (span, started, task, worker) do update
  set
    done = excluded.done,
    failed = excluded.failed,
    retried = excluded.retried,
    dead = excluded.dead,
    snoozed = excluded.snoozed,
    discarded = excluded.discarded,
    given_back = excluded.given_back,
    wait_seconds = excluded.wait_seconds,
    run_seconds = excluded.run_seconds,
    wait = excluded.wait,
    run = excluded.run
  where excluded.done + excluded.failed + excluded.snoozed + excluded.discarded + excluded.given_back
    > counters.done + counters.failed + counters.snoozed + counters.discarded + counters.given_back
)
select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_micros
