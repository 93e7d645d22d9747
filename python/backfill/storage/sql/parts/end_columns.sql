  ends.job_id, ends.task_identifier, ends.how, ends.attempts, ends.max_attempts, ends.priority, ends.queue_name, ends.job_key,
  case when isfinite(ends.created_at) then (extract(epoch from ends.created_at) * 1000000)::numeric(30) end as created_at,
  case when isfinite(ends.run_at) then (extract(epoch from ends.run_at) * 1000000)::numeric(30) end as run_at,
  case when isfinite(ends.started_at) then (extract(epoch from ends.started_at) * 1000000)::numeric(30) end as started_at,
  case when isfinite(ends.ended_at) then (extract(epoch from ends.ended_at) * 1000000)::numeric(30) end as ended_at,
  case when isfinite(ends.expires_at) then (extract(epoch from ends.expires_at) * 1000000)::numeric(30) end as expires_at,
  ends.worker_id, ends.error, ends.result::text as result
