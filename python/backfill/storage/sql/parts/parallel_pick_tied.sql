-- The first parallel jobs as parallel_pick.sql finds them, but for one priority of which many jobs have one run_at, and many
-- of these are passed over, since their tasks are left out. An index has the entries of one run_at in the order of the
-- table. So of that run_at only those jobs are read that lie behind the place in the table where the last claim ended, up to
-- a bound. Later jobs are not, since more of that run_at may lie beyond the bound. Without a place it is the same pick.
-- Nothing else than its place finds such a job: what is asked of it is wrapped in coalesce, and a scan of places is in order.
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
        and jobs.run_at <= least(now(), case when span.low = $9::smallint then ($10::timestamptz[])[1] end)
        and (jobs.flags is null or not jobs.flags ?| $3::text[])
        -- lane: parallel
      order by jobs.run_at
      limit $2::integer
      for update skip locked
    ) as level
    union all
    select tied.*
    from (
      select
        jobs.ctid, jobs.priority, jobs.run_at, jobs.id,
        case when pg_column_size(jobs.payload) > 512 then octet_length(jobs.payload::text) end as size
      from :"schema"._private_jobs as jobs
      where jobs.ctid > $11::tid
        and jobs.ctid < $12::tid
        and span.low = span.high
        and span.low = $9::smallint
        and coalesce(
          jobs.is_available and jobs.job_queue_id is null and jobs.priority = span.low and jobs.run_at = ($10::timestamptz[])[2],
          false
        )
        and (jobs.flags is null or not jobs.flags ?| $3::text[])
        -- lane: parallel
      limit $2::integer
      for update skip locked
    ) as tied
    union all
    -- part: parallel_gap
  ) as front
  where $9::smallint is null or span.high <= $9::smallint
  limit $2::integer
)
