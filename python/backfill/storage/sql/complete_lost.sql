-- does: Deletes jobs that have completed within a window that was lost before it could delete them; each only while its row is
--   still the one that the window held, and nobody else holds it. The others run again. Gives the ids of those it deleted.
-- locks: _private_jobs rows for update, skip locked (delete)
-- index: none: it reads the rows at their places
-- params: $1 ids bigint[], $2 places tid[], $3 writers text[] (transactions)
with lost as materialized (
  select jobs.ctid
  from unnest($1::bigint[], $2::tid[], $3::text[]) as held (id, place, writer)
  join :"schema"._private_jobs as jobs on jobs.id = any (array[held.id])
  where jobs.ctid = held.place
    and jobs.xmin::text = held.writer
    and coalesce(jobs.locked_at is null, false)
  for update of jobs skip locked
)
delete from :"schema"._private_jobs as jobs
where jobs.ctid = any (array(select ctid from lost))
returning jobs.id
