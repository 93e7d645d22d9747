-- does: Groups the dead letters by their errors' fingerprints, the largest groups first.
-- locks: none
-- index: none: it reads all dead letters
-- params: $1 task text, $2 wanted integer
select
  fingerprint, error_type, count(*) as jobs, sum(failure_count) as failures,
  (extract(epoch from min(failed_at) filter (where isfinite(failed_at))) * 1000000)::numeric(30) as first_failed_at,
  (extract(epoch from max(failed_at) filter (where isfinite(failed_at))) * 1000000)::numeric(30) as last_failed_at,
  (array_agg(id order by failed_at desc, id desc))[1] as latest,
  array_to_json((array_agg(distinct task_identifier))[1:10]) as tasks
from :"schema".backfill_dlq
where $1::text is null
  or task_identifier = $1::text
group by fingerprint, error_type
order by count(*) desc, max(failed_at) desc, fingerprint
limit $2::integer
