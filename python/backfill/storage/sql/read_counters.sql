-- does: Gives the counts of the spans that begin within a range of time, added up by task, by worker where that is asked for, and
--   by minute, hour or day (all the range where $5 is null), oldest first; each with the coarsest span that is in it. A null
--   filters nothing. Times are in Unix microseconds.
-- locks: none
-- index: backfill_counters_pkey
-- params: $1 task text, $2 worker text, $3 since timestamptz, $4 until timestamptz, $5 by text, $6 by_worker boolean
select
  counters.task,
  case when $6::boolean then nullif(counters.worker, '') end as of_worker,
  (extract(epoch from min(date_trunc(coalesce($5::text, 'minute'), counters.started, 'UTC'))) * 1000000)::bigint as started,
  (array['minute', 'hour', 'day'])[max(array_position(array['minute', 'hour', 'day'], counters.span))] as coarsest,
  sum(counters.done)::bigint as done,
  sum(counters.failed)::bigint as failed,
  sum(counters.retried)::bigint as retried,
  sum(counters.dead)::bigint as dead,
  sum(counters.snoozed)::bigint as snoozed,
  sum(counters.discarded)::bigint as discarded,
  sum(counters.given_back)::bigint as given_back,
  sum(counters.wait_seconds) as wait_seconds,
  array_to_json(:"schema".backfill_sum(counters.wait))::text as wait,
  sum(counters.run_seconds) as run_seconds,
  array_to_json(:"schema".backfill_sum(counters.run))::text as run
from :"schema".backfill_counters as counters
where counters.span in ('minute', 'hour', 'day')
  and counters.started >= coalesce($3::timestamptz, '-infinity')
  and counters.started < coalesce($4::timestamptz, 'infinity')
  and ($1::text is null or counters.task = $1::text)
  and ($2::text is null or counters.worker = $2::text)
group by counters.task, of_worker, date_trunc($5::text, counters.started, 'UTC')
order by started, counters.task, of_worker
