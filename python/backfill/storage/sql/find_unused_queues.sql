-- does: Looks at so many serial queues from an id on, and holds those that no job uses and nobody has locked, so many at most;
--   gives the id to go on behind, null where no more come, and the ids that it holds. They are to be looked at again.
-- locks: _private_job_queues rows for update, skip locked: somebody is adding a job to those, or works on one
-- index: job_queues_pkey1, backfill_jobs_serial_head, backfill_jobs_stuck, backfill_jobs_locked
-- params: $1 after integer, $2 looked_at integer, $3 wanted integer
with looked as materialized (
  select queues.id
  from :"schema"._private_job_queues as queues
  where queues.id > $1::integer
  order by queues.id
  limit $2::integer
),
unused as materialized (
  select queues.id
  from :"schema"._private_job_queues as queues
  where queues.id = any (array(select looked.id from looked))
    and
    -- part: unused_queue
  order by queues.id
  limit $3::integer
  for update skip locked
)
select
  case
    when (select count(*) from unused) >= $3::integer then (select max(id) from unused)
    else (select max(id) from looked)
  end as last,
  (select coalesce(array_agg(id), '{}')::text from unused) as ids
