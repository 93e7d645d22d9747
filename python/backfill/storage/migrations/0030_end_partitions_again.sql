-- does: Makes the function by which workers have partitions of ends made, again: it refuses long lists of days, makes none
--   that lies more than two years ahead, and goes by a row of backfill_locks, which only our roles can lock.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Makes the partitions of some days (UTC) that are not there yet, 32 at most, each with what the default one holds of it;
-- says how many it made. Days before yesterday and those more than two years ahead are passed over: such ends stay in the
-- default one, where they expire as well. So does a day of which that one holds very many, since others would wait while
-- they move.
create or replace function :"schema".backfill_make_ends(days date[]) returns integer
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
  if cardinality(days) > 100 then
    raise exception 'days: % of them, at most 100 a call', cardinality(days) using errcode = 'invalid_parameter_value';
  end if;
  perform from :"schema".backfill_locks as locks where locks.name = 'ends' for update skip locked;
  if not found then
    return 0;
  end if;
  for wanted in
    select distinct day
    from unnest(days) as day
    where day between current_date - 1 and current_date + 732
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
