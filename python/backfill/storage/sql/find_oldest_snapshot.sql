-- does: Says for how many seconds the transaction has been open that keeps dead rows of this database longest, prepared ones too, as
--   far as this role may see it; 0 where there is none. Such a transaction holds a snapshot, or a number of its own. One that
--   vacuums keeps no dead rows.
-- locks: none
-- index: none: it reads the server's own state
-- params: none
select coalesce(max(held.seconds), 0)::double precision as seconds
from (
  select extract(epoch from clock_timestamp() - activity.xact_start) as seconds
  from pg_stat_activity as activity
  where activity.datname = current_database()
    and (activity.backend_xmin is not null or activity.backend_xid is not null)
    and activity.pid <> pg_backend_pid()
    and not exists (select from pg_stat_progress_vacuum as vacuums where vacuums.pid = activity.pid)
  union all
  select extract(epoch from clock_timestamp() - prepared.prepared)
  from pg_prepared_xacts as prepared
  where prepared.database = current_database()
) as held
