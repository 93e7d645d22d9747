-- does: Finds the names of the tasks and serial queues of a batch of rows that wait.
-- locks: none
-- index: none: it reads the temporary table only
-- params: $1 batch integer
select distinct identifier, queue_name
from pg_temp.bulk_waiting
where batch = $1::integer
