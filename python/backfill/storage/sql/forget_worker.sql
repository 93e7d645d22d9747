-- does: Deletes the row of a worker that was given up, once it holds no job any more; says whether it did.
-- locks: its backfill_workers row (delete)
-- index: backfill_workers_pkey, backfill_jobs_locked
-- params: $1 worker text
with gone as (
  delete from :"schema".backfill_workers
  where id = $1::text
    and given_up_at is not null
    and not exists (select from :"schema"._private_jobs as jobs where jobs.locked_by = $1::text)
  returning :"schema".backfill_tell_engine(id, false)
)
select count(*) as gone
from gone
