-- does: Makes the table in which workers count how attempts end, and the functions that add its histograms up.
-- foundation: no
-- transaction: yes
-- breaking: no

-- The key begins with span and start: workers write at the end of the minutes, folding takes from their front, and whoever
-- reads wants a range of time. A worker's minute is written some twelve times, which room on its page makes cheap.
create table :"schema".backfill_counters (
  span text not null constraint backfill_counters_span_check check (span in ('minute', 'hour', 'day')),
  started timestamptz not null,
  task text not null,
  worker text not null,
  done bigint not null,
  failed bigint not null,
  retried bigint not null,
  dead bigint not null,
  snoozed bigint not null,
  discarded bigint not null,
  given_back bigint not null,
  wait_seconds double precision not null,
  run_seconds double precision not null,
  wait bigint[] not null,
  run bigint[] not null,
  constraint backfill_counters_pkey primary key (span, started, task, worker)
) with (fillfactor = 60);

alter table :"schema".backfill_counters enable row level security;

comment on table :"schema".backfill_counters is
  'How attempts ended, by task, worker and minute, folded to hours and days with age. Failed attempts were retried or dead. '
  'wait and run are histograms: the first bucket is under 1 ms, the next under 2 ms, 4 ms and so on.';

-- Two histograms bucket by bucket; what one lacks at its end is zero.
create function :"schema".backfill_add(one bigint[], other bigint[]) returns bigint[]
language sql immutable parallel safe
as $$
  select coalesce(array_agg(coalesce(a, 0) + coalesce(b, 0) order by place), '{}')
  from unnest(one, other) with ordinality as pairs (a, b, place)
$$;

create aggregate :"schema".backfill_sum(bigint[]) (
  sfunc = :"schema".backfill_add,
  stype = bigint[],
  combinefunc = :"schema".backfill_add,
  initcond = '{}',
  parallel = safe
);
