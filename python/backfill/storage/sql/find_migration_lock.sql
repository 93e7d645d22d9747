-- does: Says who has the lock of try_migration_lock: process, role and program.
-- locks: none
-- index: none: it reads the server's own state
-- params: $1 schema text
select locks.pid, activity.usename::text as role, activity.application_name as program
from pg_locks as locks
left join pg_stat_activity as activity on activity.pid = locks.pid
where locks.locktype = 'advisory'
  and locks.granted
  and locks.objsubid = 1
  and locks.database = (select oid from pg_database where datname = current_database())
  and (locks.classid::bigint << 32) | locks.objid::bigint = hashtextextended('backfill.migrate:' || $1::text, 0)
limit 1
