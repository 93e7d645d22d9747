-- does: Makes the function by which our workers are seen in `_private_workers` too, where the Rust engine has made that table:
--   with its recovery on it unlocks the jobs of whoever has no row there. The table may come later than this migration.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Writes a worker's heartbeat there, or deletes its row; nothing where there is no such table. It runs as the role that
-- migrates, since workers have no rights on that table. What that table refuses costs no heartbeat in ours.
create function :"schema".backfill_tell_engine(worker text, alive boolean) returns void
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
        insert into :"schema"._private_workers (id) values (worker) on conflict do nothing;
      end if;
    else
      delete from :"schema"._private_workers where id = worker;
    end if;
  exception when others then
    raise warning 'backfill: _private_workers could not be told of worker %: %', worker, sqlerrm;
  end;
end;
$body$;

revoke all on function :"schema".backfill_tell_engine(text, boolean) from public;
