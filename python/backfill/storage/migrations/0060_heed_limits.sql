-- does: Has the limits worked out anew whenever an operator, or a breaker, says something about one, and whenever a worker
--   starts, ends or is given up.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Works the limits out anew; returns whether they changed, and then workers were told.
-- It is called after each change of these rows. All who call it take turns until their transactions end, and each looks at the
-- rows when its turn has come, so the last one has seen all changes. Whoever waits too long leaves it to the upkeep of workers,
-- which calls it now and then. Where nothing is limited it looks at small tables only.
-- Where a limit begins to count jobs, or counts them in another way, the jobs that workers have locked get slots.
create function :"schema".backfill_resolve_limits() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $body$
declare
  changed bigint;
  begun text[];
begin
  if not exists (select from :"schema".backfill_limits)
    and not exists (select from :"schema".backfill_workers as workers where workers.limits <> '{}')
    and not exists (select from :"schema".backfill_control as control where control.kind in ('limit', 'breaker')) then
    return false;
  end if;
  begin
    perform :"schema".backfill_take_turn('limits');
  exception when lock_not_available then return false;
  end;
  with wanted as materialized (
    select * from :"schema".backfill_wanted_limits()
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
  select
    (select count(*) from dropped) + (select count(*) from written),
    array(
      select wanted.task
      from wanted
      left join :"schema".backfill_limits as before on before.task = wanted.task -- as it was before this statement
      where wanted.most is not null
        and not wanted.probing
        and (before.most is null or before.probing or before.by_path is distinct from wanted.by_path)
      order by wanted.task
    )
  into changed, begun;
  for place in 1..cardinality(begun) loop
    begin
      perform :"schema".backfill_count_jobs(begun[place], null);
    exception when lock_not_available then null; -- each worker has its own jobs counted when it hears of the limit
    end;
  end loop;
  if changed > 0 then
    perform :"schema".backfill_tell_workers('limits');
  end if;
  return changed > 0;
end;
$body$;

create function :"schema".backfill_heed_limits() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  perform :"schema".backfill_resolve_limits();
  return null;
end;
$body$;

-- Triggers call it, so that no statement can forget to, least of all one of the version before.
create trigger backfill_heed_added_limits
after insert or update on :"schema".backfill_control
for each row when (new.kind in ('limit', 'breaker')) execute function :"schema".backfill_heed_limits();

create trigger backfill_heed_removed_limits
after delete on :"schema".backfill_control
for each row when (old.kind in ('limit', 'breaker')) execute function :"schema".backfill_heed_limits();

create trigger backfill_heed_workers
after insert or delete or update of given_up_at, limits on :"schema".backfill_workers
for each statement execute function :"schema".backfill_heed_limits();

revoke execute on function :"schema".backfill_resolve_limits(), :"schema".backfill_heed_limits() from public;
