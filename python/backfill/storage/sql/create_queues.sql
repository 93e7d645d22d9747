-- does: Makes the serial queues that are missing, in the order of their names, so that two producers never wait for each
--   other in a ring.
-- locks: none but the new rows
-- index: job_queues_queue_name_key
-- params: $1 queue_names text[]
-- The known names are looked up by themselves: in a join the planner could as well read all queues, dead rows too.
insert into :"schema"._private_job_queues (queue_name)
select name
from unnest($1::text[]) as name
where name not in (
    select queues.queue_name
    from :"schema"._private_job_queues as queues
    where queues.queue_name = any ($1::text[])
  )
order by name
on conflict do nothing
