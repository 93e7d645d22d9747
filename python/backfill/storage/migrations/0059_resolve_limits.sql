-- does: Makes the function that works out which limits hold, from what operators say and what workers declare.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Works the limits out anew; returns whether they changed, and then workers were told. A limit that an operator set wins. Else
-- the worker counts that started last among those that know the task and whose version can declare limits (its column limits
-- is not null). A worker counts until it is removed or given up, whenever it has last beaten: a database that was away for a
-- while must not find all limits gone. A breaker that stands lets one job try in each pause.
-- It is called after each change of these rows. All who call it take turns until their transactions end, and each looks at the
-- rows when its turn has come, so the last one has seen all changes. Whoever waits too long leaves it to the upkeep of workers,
-- which calls it now and then. Where nothing is limited it looks at small tables only.
create function :"schema".backfill_resolve_limits() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $body$
declare
  changed bigint;
begin
  if not exists (select from :"schema".backfill_limits)
    and not exists (select from :"schema".backfill_workers as workers where workers.limits <> '{}')
    and not exists (select from :"schema".backfill_control as control where control.kind in ('limit', 'breaker')) then
    return false;
  end if;
  begin
    perform pg_advisory_xact_lock(hashtextextended('backfill_limits', pg_typeof(null:::"schema".backfill_limits)::oid::bigint));
  exception when lock_not_available then return false;
  end;
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
  ),
  dropped as (
    delete from :"schema".backfill_limits as limits
    where limits.task not in (select wanted.task from wanted)
    returning 1
  ),
  written as (
    insert into :"schema".backfill_limits as limits select * from wanted
    on conflict (task) do update
    set
      most = excluded.most, by_path = excluded.by_path, rate_count = excluded.rate_count, rate_micros = excluded.rate_micros,
      burst = excluded.burst, closed_until = excluded.closed_until, probing = excluded.probing, source = excluded.source
    where limits.* is distinct from excluded.*
    returning 1
  )
  select (select count(*) from dropped) + (select count(*) from written) into changed;
  if changed > 0 then
    perform :"schema".backfill_tell_workers('limits');
  end if;
  return changed > 0;
end;
$body$;

revoke execute on function :"schema".backfill_resolve_limits() from public;
