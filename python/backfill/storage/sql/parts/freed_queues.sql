freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  from ended
  where queues.id = ended.queue_id
    and coalesce(queues.locked_by = $1::text and queues.locked_at = ended.queue_locked_at, false)
)
