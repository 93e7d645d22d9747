-- does: Gives the time of the heartbeat along with each new row of `_private_workers`. The Rust engine's table has no default
--   for it, so the row of migration 22 was refused there, and the engine's recovery took our workers for dead.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Writes a worker's heartbeat there, or deletes its row; nothing where there is no such table. It runs as the role that
-- migrates, since workers have no rights on that table. What that table refuses costs no heartbeat in ours.
create or replace function :"schema".backfill_tell_engine(worker text, alive boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $body$
begin
  if worker not like 'backfill\_%' or not exists (
    select
    from pg_class
    where relname = '_private_workers'
      and relnamespace = (
        select relnamespace from pg_class where oid = pg_typeof(null:::"schema".backfill_workers)::text::regclass
      )
  ) then
    return;
  end if;
  begin
    if alive then
      update :"schema"._private_workers set last_heartbeat_at = now() where id = worker;
      if not found then
        insert into :"schema"._private_workers (id, last_heartbeat_at) values (worker, now()) on conflict do nothing;
      end if;
    else
      delete from :"schema"._private_workers where id = worker;
    end if;
  exception when others then
    raise warning 'backfill: _private_workers could not be told of worker %: %', worker, sqlerrm;
  end;
end;
$body$;
