-- does: Makes the function that says which history of the database the server writes.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Says which history of the database this server writes: the cluster's identifier and the number of its timeline. A server that
-- was a standby, or was restored from a backup, goes on with a timeline of its own, in which ids of transactions may stand for
-- other transactions than before. Null where the server does not say: some services run servers without these functions. It tells
-- what every role may ask of the server itself, so every role may call it.
create function :"schema".backfill_timeline() returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
begin
  return (select control.system_identifier::text || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
          from pg_control_system() as control);
exception
  when others then
    return null;
end;
$body$;
