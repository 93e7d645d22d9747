-- does: Finds the ids of our workers that have no row any more and under which jobs have been locked for so many seconds, 100 at
--   most, with how many of them are serial. A worker's row is there before its first claim, and goes after all is given back.
-- locks: none
-- index: backfill_jobs_locked
-- params: $1 gone_for double precision (seconds)
select jobs.locked_by, count(jobs.job_queue_id)
from :"schema"._private_jobs as jobs
where jobs.locked_by is not null
  and starts_with(jobs.locked_by, 'backfill_')
  and jobs.locked_at < now() - $1::double precision * interval '1 second'
  and not exists (select from :"schema".backfill_workers as workers where workers.id = jobs.locked_by)
group by jobs.locked_by
order by jobs.locked_by
limit 100
