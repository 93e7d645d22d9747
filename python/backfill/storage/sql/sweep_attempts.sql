-- does: Looks at some attempts, from a place on (from any place where $1 is null), and deletes those whose jobs are gone: others deleted the jobs, or they were
--   put off and then done. Of a job that is there it deletes what it sees beyond the newest 20. Says how many it looked at, how
--   many it deleted, and the place of the last; that is null where there were none.
-- locks: backfill_attempts rows (delete)
-- index: backfill_attempts_pkey, jobs_pkey1
-- params: $1 after_job bigint, $2 after_id bigint, $3 wanted integer
-- Rows are found by `any (array[...])` where an equality would do: by one the planner could as well begin with all of them.
with page as materialized (
  select attempts.job_id, attempts.id
  from :"schema".backfill_attempts as attempts
  where (attempts.job_id, attempts.id) > (
      coalesce($1::bigint, (select floor(random() * max(all_of_them.job_id)) from :"schema".backfill_attempts as all_of_them)),
      $2::bigint
    )
  order by attempts.job_id, attempts.id
  limit $3::integer
),
ranked as (
  select page.job_id, page.id, row_number() over (partition by page.job_id order by page.id desc) as newest
  from page
),
useless as materialized (
  select ranked.job_id, ranked.id
  from ranked
  where ranked.newest > 20
    or (select jobs.id from :"schema"._private_jobs as jobs where jobs.id = any (array[ranked.job_id])) is null
),
gone as (
  delete from :"schema".backfill_attempts as old
  using useless
  where old.job_id = any (array[useless.job_id])
    and old.id = any (array[useless.id])
  returning old.id
),
last as (
  select page.job_id, page.id
  from page
  order by page.job_id desc, page.id desc
  limit 1
)
select
  (select count(*) from page) as seen,
  (select count(*) from gone) as deleted,
  (select job_id from last) as job_id,
  (select id from last) as id
