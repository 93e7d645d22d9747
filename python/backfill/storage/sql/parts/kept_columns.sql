    job_id, task_identifier, how, attempts, max_attempts, priority, queue_name, job_key, created_at, run_at, started_at,
    expires_at, worker_id, error, attempt_records
