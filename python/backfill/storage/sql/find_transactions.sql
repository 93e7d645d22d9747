-- does: Gives the transactions of others that are under way in this database, prepared ones too, the oldest first, with who has
--   each of them and for how many seconds, as far as this role may see it. Every transaction has a lock on its own virtual
--   number, which all roles may see.
-- locks: none
-- index: none: it reads the server's own state
-- params: none
select
  locks.virtualxid as number,
  format(
    'server process %s (role %s, program %s%s)', activity.pid, activity.usename, activity.application_name, ', ' || activity.state
  ) as who,
  extract(epoch from clock_timestamp() - activity.xact_start)::double precision as seconds
from pg_locks as locks
join pg_stat_activity as activity on activity.pid = locks.pid
where locks.locktype = 'virtualxid'
  and locks.granted
  and activity.datname = current_database()
  and activity.usesysid is not null
  and activity.pid <> pg_backend_pid()
union all
select
  'prepared ' || prepared.gid, format('the prepared transaction %L', prepared.gid),
  extract(epoch from clock_timestamp() - prepared.prepared)::double precision
from pg_prepared_xacts as prepared
where prepared.database = current_database()
order by seconds desc nulls last, number
