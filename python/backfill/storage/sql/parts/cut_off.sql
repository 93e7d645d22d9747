-- The jobs of a worker that died, each held, with what is known of it: `superseded` is one that was replaced or removed while
-- it ran, `doubtful` one that may have been. The items of a batch are nowhere else, so it counts as superseded only where it is
-- marked as removed; where nobody said whether a job is a batch, one whose payload is an array counts as one. Protocols before 3 do not set updated_at, and of a worker without a row the
-- protocol is not known. The contract's functions also write to rows that have been locked for over 4 hours, which do not
-- replace or remove them.
found as materialized (
  select
    jobs.id, jobs.job_queue_id, jobs.attempts as attempt, jobs.locked_at, coalesce(jobs.flags ? 'backfill.cancel', false) as cancelled,
    jobs.attempts >= jobs.max_attempts or coalesce(jobs.flags ? 'backfill.cancel', false) as last,
    jobs.flags ? 'backfill.block_on_retry' as blocks,
    coalesce((select protocol >= 3 from :"schema".backfill_workers where id = $1::text), false) as tells,
    abs(extract(epoch from jobs.updated_at)::float8 - extract(epoch from jobs.locked_at)::float8) < 14400 as soon,
    coalesce(jobs.updated_at > jobs.locked_at, true) as later,
    coalesce(jobs.flags ? 'backfill.removed', false) as removed, json_typeof(jobs.payload) = 'array' as is_array,
    -- part: written_since
    as written
  from :"schema"._private_jobs as jobs
  where jobs.id = any ($2::bigint[])
    and coalesce(jobs.locked_by = $1::text, false)
  for update of jobs
),
cut_off as materialized (
  select
    found.id, found.job_queue_id, found.attempt, found.last, found.blocks, found.cancelled, found.locked_at, given.delay,
    given.keep,
    not found.cancelled
      and coalesce(found.written, false)
      and (found.removed or (not coalesce(given.batch, found.is_array) and coalesce(found.tells and found.soon, false)))
      as superseded,
    found.written
      and not found.removed
      and (found.tells or found.later)
      and (coalesce(given.batch, found.is_array) or not coalesce(found.tells and found.soon, false)) as doubtful
  from found
  join unnest($2::bigint[], $3::double precision[], $4::double precision[], $6::boolean[]) as given (id, delay, keep, batch)
    on given.id = found.id
),
-- What is noted of each: the attempt is lost, since nobody knows what it came to. It began when its lock was taken or renewed.
held as materialized (
  select
    cut_off.id, cut_off.attempt, cut_off.last, cut_off.superseded, cut_off.locked_at as started_at, 'lost' as how,
    null::text as error_type, regexp_replace($5::text, '^WorkerDied: ', '') as message, null::text as traceback,
    true as many
  from cut_off
)
