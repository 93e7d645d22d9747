-- does: Makes the functions by which workers, who own no table, have partitions of ends made ahead and dropped when over.
--   They run as the role that migrates, wait half a second for a lock at most, and one at a time.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Makes the partitions of some days (UTC) that are not there yet, 32 at most, each with what the default one holds of it;
-- says how many it made. No day lies before yesterday, or more than ten years ahead. A day of which the default one holds
-- very many is left there, since others would wait while they move; they expire there as well.
create function :"schema".backfill_make_ends(days date[]) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
set timezone = 'UTC'
as $body$
declare
  parent regclass := pg_typeof(null:::"schema".backfill_ends)::text::regclass;
  home regnamespace := (select relnamespace from pg_class where oid = parent);
  wanted date;
  partition text;
  made integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('backfill_ends', parent::oid::bigint)) then
    return 0;
  end if;
  for wanted in
    select distinct day
    from unnest(days) as day
    where day between current_date - 1 and current_date + 3660
      and not exists (
        select from pg_class where relnamespace = home and relname = 'backfill_ends_' || to_char(day, 'YYYYMMDD')
      )
      and (
        select count(*)
        from (
          select from :"schema".backfill_ends_default where expires_at >= day and expires_at < day + 1 limit 100001
        ) as rows_of_it
      ) <= 100000
    order by day
    limit 32
  loop
    partition := format('%s.%I', home, 'backfill_ends_' || to_char(wanted, 'YYYYMMDD'));
    execute format('create table %s (like %s including defaults including constraints)', partition, parent);
    execute format('alter table %s enable row level security', partition);
    lock table only :"schema".backfill_ends_default in access exclusive mode;
    execute format(
      'with moved as (
        delete from %s.backfill_ends_default where expires_at >= %L and expires_at < %L returning *
      )
      insert into %s select * from moved',
      home, wanted::timestamptz, (wanted + 1)::timestamptz, partition
    );
    execute format(
      'alter table %s attach partition %s for values from (%L) to (%L)',
      parent, partition, wanted::timestamptz, (wanted + 1)::timestamptz
    );
    made := made + 1;
  end loop;
  return made;
end;
$body$;

-- Drops partitions whose day is over, eight at most, and deletes what has expired in the default one; says how many
-- partitions and rows those were.
create function :"schema".backfill_drop_ends() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
set timezone = 'UTC'
as $body$
declare
  parent regclass := pg_typeof(null:::"schema".backfill_ends)::text::regclass;
  expired regclass;
  gone integer;
  dropped integer := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('backfill_ends', parent::oid::bigint)) then
    return 0;
  end if;
  for expired in
    select inhrelid
    from pg_inherits
    join pg_class as partitions on partitions.oid = inhrelid
    where inhparent = parent
      and substring(pg_get_expr(relpartbound, inhrelid) from $bound$ TO \('([^']+)'\)$bound$)::timestamptz <= now()
    order by inhrelid
    limit 8
  loop
    execute format('drop table %s', expired);
    dropped := dropped + 1;
  end loop;
  delete from :"schema".backfill_ends_default
  where ctid = any(array(select ctid from :"schema".backfill_ends_default where expires_at <= now() limit 10000));
  get diagnostics gone = row_count;
  return dropped + gone;
end;
$body$;

revoke execute on function :"schema".backfill_make_ends(date[]), :"schema".backfill_drop_ends() from public;
