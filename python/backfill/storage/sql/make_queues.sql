-- does: Makes the serial queues that are missing, outside a transaction, in the order of their names. It waits only briefly
--   for a transaction that is making one of them too: that one may want another of these next.
-- locks: none but the new rows
-- index: job_queues_queue_name_key
-- params: $1 queue_names text[]
-- The known names are looked up by themselves: in a join the planner could as well read all queues, dead rows too.
insert into :"schema"._private_job_queues (queue_name)
select name
from unnest($1::text[]) as name
cross join (select set_config('lock_timeout', '200ms', true)) as patience (given)
where patience.given is not null
  and name not in (
    select queues.queue_name
    from :"schema"._private_job_queues as queues
    where queues.queue_name = any ($1::text[])
  )
order by name
on conflict do nothing
