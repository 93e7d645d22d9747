-- The first parallel jobs, span by span of priorities: a span of one priority begins at its floor and ends at now, so that
-- neither the dead rows before it nor the jobs for later behind it are read; a span of many is for priorities not known yet.
-- Of large payloads it takes the size, as a claim sends it; what is stored in 512 bytes counts for nothing, since to measure it
-- would cost more than it can weigh.
parallel as materialized (
  select front.*
  from unnest($4::smallint[], $5::smallint[], $6::timestamptz[]) as span (low, high, floor)
  cross join lateral (
    select level.*
    from (
      select
        jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
        case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
      from :"schema"._private_jobs as jobs
      where jobs.is_available = true
        and jobs.job_queue_id is null
        and span.low = span.high
        and jobs.priority = span.low
        and jobs.run_at >= span.floor
        and jobs.run_at <= now()
        and (jobs.flags is null or not jobs.flags ?| $3::text[])
        -- lane: parallel
      order by jobs.run_at
      limit $2::integer
      for update skip locked
    ) as level
    union all
    -- part: parallel_gap
  ) as front
  limit $2::integer
)
