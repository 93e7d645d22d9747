-- does: Renews the locks of jobs that have been held for long, and of their queues, so that nobody takes them for abandoned
--   by their age; gives back each job's and queue's new time. A job replaced or removed while it runs is not renewed, only
--   its queue is; one that is cancelled has lost its key too, and is renewed. updated_at is made equal to locked_at, as the claims do.
-- locks: _private_jobs rows (update), _private_job_queues rows (update)
-- index: jobs_pkey1, job_queues_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[], $4 queue_ids integer[], $5 queue_locked_ats timestamptz[],
--   $6 attempts smallint[], $7 keyed boolean[]
-- Rows are found by their ids alone, and the fence is asked of each row that was found: the planner could turn a join round,
-- and would read all of a table that its statistics call empty.
with queues_renewed as (
  update :"schema"._private_job_queues as queues
  set locked_at = now()
  where queues.id = any ($4::integer[])
    and coalesce(
      queues.locked_by = $1::text
      and (queues.id, queues.locked_at) in (select * from unnest($4::integer[], $5::timestamptz[])),
      false
    )
  returning queues.id, queues.locked_at
),
jobs_renewed as (
  update :"schema"._private_jobs as jobs
  set locked_at = now(), updated_at = now()
  where jobs.id = any ($2::bigint[])
    and coalesce(
      jobs.locked_by = $1::text
      and (jobs.id, jobs.locked_at, jobs.attempts)
        in (select * from unnest($2::bigint[], $3::timestamptz[], $6::smallint[])),
      false
    )
    and (
      jobs.key is not null
      or jobs.flags ? 'backfill.cancel'
      or jobs.id not in (select id from unnest($2::bigint[], $7::boolean[]) as held (id, keyed) where keyed)
    )
  returning jobs.id, jobs.locked_at
),
theirs as materialized (
  select jobs.id
  from :"schema"._private_jobs as jobs
  where jobs.id = any ($2::bigint[])
    and coalesce(
      jobs.locked_by = $1::text
      and (jobs.id, jobs.locked_at) in (select * from unnest($2::bigint[], $3::timestamptz[])),
      false
    )
)
select held.id, jobs_renewed.locked_at, queues_renewed.locked_at as queue_locked_at, theirs.id is not null as found
from unnest($2::bigint[], $4::integer[]) as held (id, queue_id)
left join jobs_renewed on jobs_renewed.id = held.id
left join queues_renewed on queues_renewed.id = held.queue_id
left join theirs on theirs.id = held.id
