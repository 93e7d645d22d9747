-- does: Unlocks every job and serial queue that these workers hold, by the contract's function, whether they are alive or not;
--   attempts and times stay as they are. Says how many jobs and how many queues were theirs when the statement began.
-- locks: _private_jobs rows, then _private_job_queues rows (update)
-- index: backfill_jobs_locked
-- params: $1 worker_ids text[]
with held as materialized (
  select
    (select count(*) from :"schema"._private_jobs as jobs where jobs.locked_by = any ($1::text[])) as jobs,
    (select count(*) from :"schema"._private_job_queues as queues where queues.locked_by = any ($1::text[])) as queues
)
select held.jobs, held.queues, :"schema".force_unlock_workers($1::text[]) as unlocked
from held
