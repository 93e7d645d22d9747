-- does: Makes the function that names the live workers of the Rust engine, where it has made its table `_private_workers`.
-- foundation: no
-- transaction: yes
-- breaking: no

-- A cleanup spares their locks. It runs as the role that migrates, since workers have no rights on that table, which may
-- also come later than this migration. Alive is who has beaten in the last 5 minutes: the engine's own limit.
create function :"schema".backfill_engine_alive() returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if not exists (
    select
    from pg_class
    where relname = '_private_workers'
      and relnamespace = (
        select relnamespace from pg_class where oid = pg_typeof(null:::"schema".backfill_workers)::text::regclass
      )
  ) then
    return '{}';
  end if;
  return array(select id from :"schema"._private_workers where last_heartbeat_at > now() - interval '5 minutes');
end;
$body$;

revoke all on function :"schema".backfill_engine_alive() from public;
