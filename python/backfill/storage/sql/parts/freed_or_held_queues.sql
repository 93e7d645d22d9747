-- Unlocks the queues of attempts that have ended, but for those in `holding`: they are held for their job's next attempt.
-- Rows are found by their ids alone, and the fence is asked of each row that was found. A join to the parameters would be the
-- planner's to turn round: by statistics that call a table empty it reads all of that table, dead rows too.
freed as (
  update :"schema"._private_job_queues as queues
  set locked_by = null, locked_at = null
  where queues.id = any ($4::integer[])
    and coalesce(
      queues.locked_by = $1::text
      and (queues.id, queues.locked_at) in (select * from unnest($4::integer[], $5::timestamptz[])),
      false
    )
    and queues.id <> all (array(select holding.queue_id from holding))
),
still_held as (
  update :"schema"._private_job_queues as queues
  set locked_by = :"schema".backfill_hold_queue(holding.queue_id, holding.id), locked_at = now()
  from holding
  where queues.id = any (array[holding.queue_id])
    and coalesce(
      queues.locked_by = $1::text
      and (queues.id, queues.locked_at) in (select * from unnest($4::integer[], $5::timestamptz[])),
      false
    )
)
