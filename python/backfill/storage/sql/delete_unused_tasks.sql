-- does: Deletes those of some tasks that still have no job and that no worker names, within the transaction that holds them: what
--   came since they were looked at is seen now. Gives their names.
-- locks: _private_tasks rows (delete), which are held already
-- index: none: it reads all jobs, when an operator asks
-- params: $1 ids integer[]
delete from :"schema"._private_tasks as tasks
where tasks.id = any ($1::integer[])
  and not exists (select from :"schema"._private_jobs as jobs where jobs.task_id = tasks.id)
  and tasks.identifier <> all (array(select unnest(workers.tasks) from :"schema".backfill_workers as workers))
returning tasks.identifier
