-- does: Gives the id of the first job after one that other programs have failed for good and that nobody holds.
-- locks: none
-- index: backfill_jobs_exhausted
-- params: $1 after bigint
select jobs.id
from :"schema"._private_jobs as jobs
where jobs.locked_at is null
  and jobs.attempts >= jobs.max_attempts
  and jobs.id > $1::bigint
order by jobs.id
limit 1
