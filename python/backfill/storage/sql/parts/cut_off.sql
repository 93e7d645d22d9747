-- The jobs of a worker that died, each held, with what is known of it: `superseded` is one that was replaced or removed while
-- it ran, `doubtful` one that may have been. Protocols before 3 do not set updated_at, and of a worker without a row the
-- protocol is not known. The contract's functions also write to rows that have been locked for over 4 hours, which do not
-- replace or remove them.
held as materialized (
  select
    jobs.id, jobs.job_queue_id, coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled,
    jobs.attempts >= jobs.max_attempts or coalesce(jobs.flags ? 'backfill.cancel', false) as last,
    jobs.flags ? 'backfill.block_on_retry' as blocks,
    coalesce((select protocol >= 3 from :"schema".backfill_workers where id = $1::text), false) as tells,
    abs(extract(epoch from jobs.updated_at)::float8 - extract(epoch from jobs.locked_at)::float8) < 14400 as soon,
    coalesce(jobs.updated_at > jobs.locked_at, true) as later,
    -- part: written_since
    as written
  from :"schema"._private_jobs as jobs
  where jobs.id = any ($2::bigint[])
    and coalesce(jobs.locked_by = $1::text, false)
  for update of jobs
),
cut_off as materialized (
  select
    held.id, held.job_queue_id, held.last, held.blocks, held.cancelled, given.delay, given.keep,
    not held.cancelled and coalesce(held.written and held.tells and held.soon, false) as superseded,
    held.written and (held.tells or held.later) and not coalesce(held.tells and held.soon, false) as doubtful
  from held
  join unnest($2::bigint[], $3::double precision[], $4::double precision[]) as given (id, delay, keep) on given.id = held.id
)
