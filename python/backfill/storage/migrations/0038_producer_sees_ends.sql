-- does: Makes the function by which a producer awaits the ends of jobs whose ids it knows, without any right on a table.
-- foundation: no
-- transaction: yes
-- breaking: no

-- The ends of some jobs that are over, and whether each job may still run, all as of one moment. A job whose attempts are
-- used up and that nobody holds was failed by hand, or by another program, and does not run again. Times are in
-- microseconds, null where they are infinite. Rows are found by `any (array[...])` where an equality would do: by one the
-- planner could as well begin with all of them. The order keeps it from the index of the newest ends, which has the ids
-- second and would be read from end to end.
create function :"schema".backfill_see_ends(job_ids bigint[]) returns table (
  id bigint, waits boolean, job_id bigint, task_identifier text, how text, attempts integer, max_attempts integer,
  priority integer, queue_name text, job_key text, created_at numeric, run_at numeric, started_at numeric,
  ended_at numeric, expires_at numeric, worker_id text, error text, result text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $body$
begin
  if cardinality(job_ids) > 1000 then
    raise exception 'job_ids: % of them, at most 1000 a call', cardinality(job_ids)
      using errcode = 'invalid_parameter_value';
  end if;
  return query
  select
    wanted.number,
    exists (
      select
      from :"schema"._private_jobs as jobs
      where jobs.id = any (array[wanted.number])
        and (jobs.attempts < jobs.max_attempts or jobs.locked_at is not null)
    ),
    ends.job_id, ends.task_identifier, ends.how, ends.attempts, ends.max_attempts, ends.priority, ends.queue_name,
    ends.job_key,
    case when isfinite(ends.created_at) then (extract(epoch from ends.created_at) * 1000000)::numeric(30) end,
    case when isfinite(ends.run_at) then (extract(epoch from ends.run_at) * 1000000)::numeric(30) end,
    case when isfinite(ends.started_at) then (extract(epoch from ends.started_at) * 1000000)::numeric(30) end,
    case when isfinite(ends.ended_at) then (extract(epoch from ends.ended_at) * 1000000)::numeric(30) end,
    case when isfinite(ends.expires_at) then (extract(epoch from ends.expires_at) * 1000000)::numeric(30) end,
    ends.worker_id, ends.error, ends.result::text
  from unnest(job_ids) as wanted (number)
  left join lateral (
    select ends.*
    from :"schema".backfill_ends as ends
    where ends.job_id = any (array[wanted.number])
      and ends.expires_at > now()
    order by ends.job_id
  ) as ends on true;
end;
$body$;
