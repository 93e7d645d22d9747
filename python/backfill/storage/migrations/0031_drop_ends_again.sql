-- does: Makes the function by which workers have partitions of ends dropped, again: it goes by a row of backfill_locks,
--   which only our roles can lock.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Drops partitions whose day is over, eight at most, and deletes what has expired in the default one; says how many
-- partitions and rows those were.
create or replace function :"schema".backfill_drop_ends() returns integer
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
  perform from :"schema".backfill_locks as locks where locks.name = 'ends' for update skip locked;
  if not found then
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
