-- does: Finds the ids of serial queues by their names, and keeps the rows from being deleted before the transaction's end.
-- locks: _private_job_queues rows for key share
-- index: job_queues_queue_name_key
-- params: $1 queue_names text[]
select id, queue_name
from :"schema"._private_job_queues
where queue_name = any ($1::text[])
for key share
