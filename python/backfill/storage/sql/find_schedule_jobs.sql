-- does: Gives the last job of each item, and what is known of it: whether it waits, is locked, has used up its attempts or is
--   a dead letter, and its end where that is kept. Times are Unix microseconds.
-- locks: none
-- index: backfill_schedule_jobs_pkey, jobs_pkey1, backfill_ends_job, backfill_dlq_job
-- params: $1 identifiers text[]
select
  last.identifier, last.job_id, (extract(epoch from last.run_at) * 1000000)::bigint as run_at,
  (extract(epoch from last.added_at) * 1000000)::bigint as added_at, job.state, ended.how,
  (extract(epoch from coalesce(ended.ended_at, letter.failed_at)) * 1000000)::bigint as ended_at, letter.failed_at is not null as is_dead
from unnest($1::text[]) as wanted (identifier)
join :"schema".backfill_schedule_jobs as last on last.identifier = any (array[wanted.identifier])
left join lateral (
  select
    case
      when jobs.locked_at is not null then 'running'
      when jobs.attempts < jobs.max_attempts then 'waiting'
      else 'failed'
    end as state
  from :"schema"._private_jobs as jobs
  where jobs.id = any (array[last.job_id])
) as job on true
left join lateral (
  select ends.how, ends.ended_at
  from :"schema".backfill_ends as ends
  where ends.job_id = any (array[last.job_id])
    and ends.expires_at > now()
    and job.state is null
  order by ends.job_id
  limit 1
) as ended on true
left join lateral (
  select entries.failed_at
  from :"schema".backfill_dlq as entries
  where entries.original_job_id = any (array[last.job_id])
    and job.state is null
  order by entries.original_job_id
  limit 1
) as letter on true
