    ($1::bigint[] is null or jobs.id = any ($1::bigint[]))
    and (
      $2::text[] is null
      or (select tasks.identifier from :"schema"._private_tasks as tasks where tasks.id = jobs.task_id) ~ any ($2::text[])
    )
    and (
      $3::text[] is null
      or case
        when jobs.job_queue_id is null then $4::boolean
        else (
          select queues.queue_name from :"schema"._private_job_queues as queues where queues.id = jobs.job_queue_id
        ) ~ any ($3::text[])
      end
    )
    and ($5::text is null or starts_with(jobs.key, $5::text))
    and ($6::integer is null or jobs.priority >= $6::integer)
    and ($7::integer is null or jobs.priority <= $7::integer)
    and ($8::timestamptz is null or jobs.run_at >= $8::timestamptz)
    and ($9::timestamptz is null or jobs.run_at <= $9::timestamptz)
    and (
      $10::text is null
      or $10::text = case
        when jobs.locked_at is not null then 'running'
        when jobs.attempts < jobs.max_attempts then 'waiting'
        else 'failed'
      end
    )
    and ($11::text[] is null or jobs.flags ?| $11::text[])
    and ($12::double precision is null or jobs.created_at <= now() - $12::double precision * interval '1 second')
