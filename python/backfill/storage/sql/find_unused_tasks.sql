-- does: Holds the tasks that have no job and that no worker of ours names, whether or not it lives; gives their ids. They are to
--   be looked at again.
-- locks: _private_tasks rows for update, skip locked: somebody is adding a job to those
-- index: none: it reads all jobs, when an operator asks
-- params: none
select tasks.id
from :"schema"._private_tasks as tasks
where not exists (select from :"schema"._private_jobs as jobs where jobs.task_id = tasks.id)
  and tasks.identifier <> all (array(select unnest(workers.tasks) from :"schema".backfill_workers as workers))
order by tasks.id
for update skip locked
