-- does: Makes the function that works out which limits should hold, from what operators say and what workers declare.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A limit that an operator set wins. Else the worker counts that started last among those that know the task and whose version
-- can declare limits (its column limits is not null). A worker counts until it is removed or given up, whenever it has last
-- beaten: a database that was away for a while must not find all limits gone. A breaker that stands lets one job try in each
-- pause.
create function :"schema".backfill_wanted_limits() returns setof :"schema".backfill_limits
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
with known as materialized (
  select workers.tasks, workers.limits
  from :"schema".backfill_workers as workers
  where jsonb_typeof(workers.limits) = 'object'
    and workers.given_up_at is null
  order by workers.started_at desc, workers.id desc
),
names as (
  select jsonb_object_keys(known.limits) as task from known
  union select substr(control.subject, 6) from :"schema".backfill_control as control where control.kind in ('limit', 'breaker')
),
said as (
  select names.task, operator.said is null as declared, coalesce(operator.said, declared.said) as said, breaker.said as trip
  from names
  left join :"schema".backfill_control as operator on (operator.kind, operator.subject) = ('limit', 'task:' || task)
  left join :"schema".backfill_control as breaker on (breaker.kind, breaker.subject) = ('breaker', 'task:' || task)
  left join lateral (
    select known.limits -> names.task as said
    from known
    where names.task = any (known.tasks) or known.limits ? names.task
    limit 1
  ) as declared on true
),
read as (
  select
    task, declared, trip,
    case when :"schema".backfill_is_whole(said -> 'most', 1, 1000000) then (said -> 'most')::integer end as most,
    case when trip is null then said ->> 'by' end as by_path,
    case
      when trip is not null then jsonb_build_object('count', 1, 'per', coalesce(nullif(trip -> 'pause', 'null'), '30'))
      when :"schema".backfill_is_whole(said -> 'rate' -> 'count', 1, 1000000)
        and jsonb_typeof(coalesce(said -> 'rate' -> 'per', '1')) = 'number' then said -> 'rate'
    end as rate
  from said
),
wanted as (
  select
    task, case when trip is null then most else 1 end as most, by_path, (rate -> 'count')::integer as rate_count,
    case
      when rate is not null
        then least(greatest(coalesce((rate ->> 'per')::numeric, 1) * 1e6, (rate ->> 'count')::numeric), 31622400e6)::bigint
    end as rate_micros,
    case when :"schema".backfill_is_whole(rate -> 'burst', 1, 1000000) then (rate -> 'burst')::integer else 1 end as burst,
    (trip ->> 'until')::timestamptz as closed_until, trip is not null as probing,
    case when trip is not null then 'breaker' when declared then 'worker' else 'operator' end as source
  from read
  where most is not null or rate is not null or trip is not null
)
select * from wanted;
$body$;

revoke execute on function :"schema".backfill_wanted_limits() from public;
