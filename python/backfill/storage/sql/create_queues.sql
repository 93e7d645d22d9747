-- does: Makes the serial queues that are missing, in the order of their names, so that two producers never wait for each
--   other in a ring.
-- locks: none but the new rows
-- index: job_queues_queue_name_key
-- params: $1 queue_names text[]
insert into :"schema"._private_job_queues (queue_name)
select name
from unnest($1::text[]) as name
where not exists (select from :"schema"._private_job_queues as queues where queues.queue_name = name)
order by name
on conflict do nothing
