-- does: Finds the names of a job's task and serial queue.
-- locks: none
-- index: tasks_pkey, job_queues_pkey1
-- params: $1 task_id integer, $2 job_queue_id integer
select
  (select identifier from :"schema"._private_tasks where id = $1::integer) as task_identifier,
  (select queue_name from :"schema"._private_job_queues where id = $2::integer) as queue_name
