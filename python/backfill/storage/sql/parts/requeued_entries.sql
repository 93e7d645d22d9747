-- The dead letters that are requeued: those without a key are held first, so that two calls add one job each.
with given as materialized (
  select entries.*
  from :"schema".backfill_dlq as entries
  where entries.id = any($1::bigint[])
),
locked as materialized (
  select entries.*
  from :"schema".backfill_dlq as entries
  where entries.id = any($1::bigint[])
    and entries.job_key is null
    and not :"schema".backfill_waits(entries.requeued_job_id)
  order by entries.id
  for update
),
chosen as materialized (
  select * from locked
  union all
  (
    select given.*
    from given
    where given.job_key is not null
      and not :"schema".backfill_runs(given.requeued_job_id)
    order by given.job_key collate "C"
  )
)
