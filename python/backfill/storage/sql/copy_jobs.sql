-- does: Takes rows of new jobs without keys as COPY BINARY; ids come from the identity column, in order.
-- locks: none but the new rows
-- index: none: it only inserts
-- params: none
copy :"schema"._private_jobs (task_id, job_queue_id, priority, run_at, max_attempts, flags, payload)
from stdin (format binary)
