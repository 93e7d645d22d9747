-- The dead letters that are requeued: those without a key are held first, so that two calls add one job each. One with a key
-- whose payload is a list is passed over as long as the job of the requeue before exists: the two lists would be joined.
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
  select locked.*, false as joins
  from locked
  union all
  (
    select given.*, json_typeof(coalesce($3::json, given.payload_json, given.payload::json)) = 'array' as joins
    from given
    where given.job_key is not null
      and not (
        coalesce(json_typeof(coalesce($3::json, given.payload_json, given.payload::json)) = 'array', false)
        and :"schema".backfill_waits(given.requeued_job_id)
      )
      and not :"schema".backfill_runs(given.requeued_job_id)
    order by given.job_key collate "C"
  )
)
