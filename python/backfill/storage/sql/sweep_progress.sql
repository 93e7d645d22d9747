-- does: Looks at some rows of progress, from a place on, and deletes those whose jobs are neither in the queue nor among the
--   dead letters. Says how many it looked at, how many it deleted, and the place of the last; that is null where there was none.
-- locks: backfill_progress rows (delete)
-- index: backfill_progress_pkey, jobs_pkey1, backfill_dlq_job
-- params: $1 after_job bigint, $2 wanted integer
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with page as materialized (
  select progress.job_id
  from :"schema".backfill_progress as progress
  where progress.job_id > $1::bigint
  order by progress.job_id
  limit $2::integer
),
useless as materialized (
  select page.job_id
  from page
  where (select jobs.id from :"schema"._private_jobs as jobs where jobs.id = any (array[page.job_id])) is null
    and (
      select min(entries.original_job_id)
      from :"schema".backfill_dlq as entries
      where entries.original_job_id = any (array[page.job_id])
    ) is null
),
gone as (
  delete from :"schema".backfill_progress as old
  using useless
  where old.job_id = any (array[useless.job_id])
  returning old.job_id
)
select
  (select count(*) from page) as seen,
  (select count(*) from gone) as deleted,
  (select max(page.job_id) from page) as job_id
