    -- The first parallel jobs of a span of many priorities.
    select gap.*
    from (
      select
        jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
        case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
      from :"schema"._private_jobs as jobs
      where jobs.is_available = true
        and jobs.job_queue_id is null
        and span.low < span.high
        and jobs.priority between span.low and span.high
        and jobs.run_at <= now()
        and (jobs.flags is null or not jobs.flags ?| $3::text[])
        -- lane: parallel
      order by jobs.priority, jobs.run_at
      limit $2::integer
      for update skip locked
    ) as gap
