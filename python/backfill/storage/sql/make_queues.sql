-- does: Makes the serial queues that are missing, outside a transaction, in the order of their names. It waits only briefly
--   for a transaction that is making one of them too: that one may want another of these next.
-- locks: none but the new rows
-- index: job_queues_queue_name_key
-- params: $1 queue_names text[]
insert into :"schema"._private_job_queues (queue_name)
select name
from unnest($1::text[]) as name
cross join (select set_config('lock_timeout', '200ms', true)) as patience (given)
where patience.given is not null
  and not exists (select from :"schema"._private_job_queues as queues where queues.queue_name = name)
order by name
on conflict do nothing
