-- does: Reads the database's clock (Unix microseconds), and a text that is another one after each change of what operators said
--   of recurring items; and the live workers that declare items or schedule. Of those that declare the same and schedule
--   alike it gives the one that started first and the one that started last, and how many there are. There is always a row.
--   is_awaited: a worker that schedules stopped its heartbeat before the first of those that live was started. It may have
--   been cut off, as by an outage of the server, and come back.
-- locks: none
-- index: none: the tables have a row a worker, and a row for each item of which operators said something
-- params: none
select
  (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock, said.mark as said, live.id as worker, live.crontab,
  live.is_scheduling, live.alike, gap.is_awaited, (extract(epoch from live.started_at) * 1000000)::bigint as started_at
from (
  select count(*) || '/' || coalesce(sum(schedules.revision), 0) as mark
  from :"schema".backfill_schedules as schedules
) as said
cross join (
  select coalesce(
    max(schedulers.heartbeat_at) filter (where not schedulers.is_live)
    < min(schedulers.started_at) filter (where schedulers.is_live),
    bool_or(not schedulers.is_live), false
  ) as is_awaited
  from (
    select
      workers.started_at, workers.heartbeat_at,
      workers.heartbeat_at > now() - workers.dead_after and workers.given_up_at is null as is_live
    from :"schema".backfill_workers as workers
    where workers.is_scheduling
  ) as schedulers
) as gap
left join (
  select
    workers.id, workers.crontab, workers.is_scheduling, workers.started_at,
    row_number() over by_start as place, count(*) over (partition by workers.crontab, workers.is_scheduling) as alike
  from :"schema".backfill_workers as workers
  where workers.heartbeat_at > now() - workers.dead_after
    and workers.given_up_at is null
    and (workers.is_scheduling or workers.crontab is not null)
  window by_start as (partition by workers.crontab, workers.is_scheduling order by workers.started_at, workers.id)
) as live on live.place = 1 or live.place = live.alike
order by live.started_at, live.id
