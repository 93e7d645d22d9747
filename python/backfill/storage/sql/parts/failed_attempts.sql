-- The jobs whose attempts have ended badly, each held, with how the attempt ended.
-- A job is found by `any (array[...])` where an equality would do: by one the planner could as well begin with all jobs, which
-- looks cheap while the statistics call their table empty. The fence is wrapped in coalesce so that it makes no guess of it.
with ended as (
  select *
  from unnest(
    $2::bigint[], $3::timestamptz[], $4::integer[], $5::timestamptz[],
    $6::smallint[], $7::boolean[], $8::double precision[], $9::text[], $10::boolean[],
    $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[]
  ) as ended (
    id, locked_at, queue_id, queue_locked_at, attempts, keyed, delay, error, final,
    started_at, how, error_type, message, traceback, items, claimed_key
  )
),
held as materialized (
  select
    jobs.id, jobs.locked_at, ended.delay, ended.error, ended.final, ended.claimed_key,
    ended.attempts as attempt, ended.started_at, ended.how, ended.error_type, ended.message, ended.traceback,
    ended.attempts > 19 or (ended.attempts = 1 and (jobs.last_error is not null or jobs.revision > 0)) as many,
    coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled,
    (jobs.attempts <> ended.attempts or (ended.keyed and jobs.key is null)) and not coalesce(jobs.flags ? 'backfill.cancel', false)
      and (ended.items is null or coalesce(jobs.flags ? 'backfill.removed', false)) as superseded,
    -- The job that took the key of a batch does not have its items, so those that failed are kept: as a dead letter. Only
    -- where it is marked as removed are they dropped.
    ended.items is not null and (jobs.attempts <> ended.attempts or (ended.keyed and jobs.key is null)) as replaced,
    ended.final or jobs.attempts >= jobs.max_attempts or coalesce(jobs.flags ? 'backfill.cancel', false) as last,
    case when jobs.flags ? 'backfill.block_on_retry' and jobs.job_queue_id = ended.queue_id then ended.queue_id end as holds,
    -- What is left of a batch: the elements that failed, each as its text was written. Elements and marks are read side by
    -- side, without a join: the worker's sessions allow none but nested loops, which take hours for a large batch.
    case
      when ended.items is not null and json_typeof(jobs.payload) = 'array' then (
        select json_agg(element.item order by element.place)
        from rows from (json_array_elements(jobs.payload), unnest(ended.items::boolean[]))
          with ordinality as element (item, failed, place)
        where element.failed
          and element.item is not null
      )
    end as remaining
  from ended
  join :"schema"._private_jobs as jobs on jobs.id = any (array[ended.id])
  where coalesce(jobs.locked_by = $1::text and jobs.locked_at = ended.locked_at, false)
  for update of jobs
)
