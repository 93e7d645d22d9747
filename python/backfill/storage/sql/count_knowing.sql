-- does: Says how many live workers know a task by this name.
-- locks: none
-- index: none: it reads the table of workers, which has a row for each
-- params: $1 task text
select count(*) as knowing
from :"schema".backfill_workers as workers
where workers.heartbeat_at > now() - workers.dead_after
  and workers.given_up_at is null
  and $1::text = any (workers.tasks)
