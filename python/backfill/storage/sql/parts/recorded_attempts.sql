-- Notes the attempts of jobs that go on, the newest 20 of each, and forgets those of jobs that are over. No attempt is noted
-- whose `how` is null. A job is looked at for older ones only where `many` says that it may have 20. One whose number of
-- attempts was lowered may have more than that for a while: the workers' upkeep deletes the rest. Rows are found by
-- `any (array[...])` where an equality would do, the older ones behind an offset: by an equality the planner could as well
-- begin with all of them.
noted as (
  insert into :"schema".backfill_attempts (job_id, attempt, how, worker_id, started_at, error_type, message, traceback)
  select
    held.id, held.attempt, held.how, $1::text, held.started_at, held.error_type, held.message, held.traceback
  from held
  where held.how is not null
    and not held.superseded
    and not held.last
),
trimmed as (
  delete from :"schema".backfill_attempts as old
  using (
    select older.job_id, older.id
    from held
    cross join lateral (
      select attempts.job_id, attempts.id
      from :"schema".backfill_attempts as attempts
      where attempts.job_id = held.id
      order by attempts.id desc
      offset 19
    ) as older
    where held.how is not null
      and held.many
  ) as older
  where old.job_id = any (array[older.job_id])
    and old.id = any (array[older.id])
),
forgotten as (
  delete from :"schema".backfill_attempts as old
  using gone
  where old.job_id = any (array[gone.id])
)
