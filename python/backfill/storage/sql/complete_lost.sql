-- does: Deletes jobs that have completed within a window that was lost before it could delete them; each only while its row is
--   still the one that the window held, and nobody else holds it. Gives the ids of those that it deleted, and of those that
--   were gone before, with which of the two. The others run again.
-- locks: _private_jobs rows for update, skip locked (delete)
-- index: jobs_pkey1
-- params: $1 ids bigint[], $2 places tid[], $3 writers text[] (transactions)
with held as materialized (
  select id, place, writer
  from unnest($1::bigint[], $2::tid[], $3::text[]) as held (id, place, writer)
),
lost as materialized (
  select jobs.ctid
  from held
  join :"schema"._private_jobs as jobs on jobs.id = any (array[held.id])
  where jobs.ctid = held.place
    and jobs.xmin::text = held.writer
    and coalesce(jobs.locked_at is null, false)
  for update of jobs skip locked
),
deleted as (
  delete from :"schema"._private_jobs as jobs
  where jobs.ctid = any (array(select ctid from lost))
  returning jobs.id
)
select id, true as deleted
from deleted
union all
select held.id, false
from held
where coalesce((select false from :"schema"._private_jobs as jobs where jobs.id = held.id limit 1), true)
