-- does: Cancels jobs that match a filter, $14 at most, of the 10,000 from an id on in the order of their ids; says how many
--   were deleted, how many were marked for their workers, and how many workers of other programs hold, and the last id that
--   was looked at (null: there are no more). Whether a job matches is decided once its row is held.
-- locks: _private_jobs rows (delete, update) in the order of their ids, _private_job_queues rows that are held for them (update,
--   skip locked), backfill_control rows (insert; delete, skip locked), new backfill_ends rows,
--   backfill_reservations rows of keys whose jobs were deleted (delete, skip locked)
-- index: jobs_pkey1, tasks_pkey, job_queues_pkey1
-- params: $1 ids bigint[], $2 tasks text[], $3 queues text[], $4 parallel boolean, $5 key_prefix text, $6 low integer, $7 high integer,
--   $8 run_at_from timestamptz, $9 run_at_until timestamptz, $10 state text, $11 flags text[],
--   $12 older_than double precision (seconds), $13 lowest bigint, $14 wanted integer, $15 reason text
with looked as materialized (
  (
    select jobs.id
    from :"schema"._private_jobs as jobs
    where $1::bigint[] is null
      and jobs.id >= $13::bigint
    order by jobs.id
    limit 10000
  )
  union all
  (
    select distinct given.id
    from unnest($1::bigint[]) as given (id)
    where given.id >= $13::bigint
    order by given.id
    limit 10000
  )
),
held as materialized (
  select jobs.id
  from looked
  join :"schema"._private_jobs as jobs on jobs.id = any (array[looked.id])
  where
    -- part: job_filter
  order by looked.id
  limit $14::integer
  for update of jobs
),
cancelled as materialized (
  select done.status
  from :"schema".backfill_cancel_jobs(array(select held.id from held), $15::text) as done
)
select
  (select count(*) from cancelled where status = 'removed') as removed,
  (select count(*) from cancelled where status = 'requested') as requested,
  (select count(*) from cancelled where status = 'foreign') as held_elsewhere,
  case when (select count(*) from held) = $14::integer then (select max(held.id) from held) else (select max(looked.id) from looked)
  end as last
