-- does: Names the serial queues that are paused, each with its id.
-- locks: none
-- index: job_queues_queue_name_key
-- params: none
select queues.queue_name, queues.id
from :"schema".backfill_control as control
join :"schema"._private_job_queues as queues on queues.queue_name = any (array[substr(control.subject, 7)])
where control.kind = 'pause'
  and starts_with(control.subject, 'queue:')
