-- does: Inserts new jobs without keys, in order, where COPY is refused; gives back their ids.
-- locks: none but the new rows
-- index: none: it only inserts
-- params: $1 task_ids integer[], $2 job_queue_ids integer[], $3 payloads text[], $4 priorities smallint[],
--   $5 run_ats timestamptz[], $6 max_attempts smallint[], $7 flags text[]
insert into :"schema"._private_jobs (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags)
select task_id, job_queue_id, payload::json, priority, run_at, max_attempts, flags::jsonb
from unnest(
  $1::integer[], $2::integer[], $3::text[], $4::smallint[], $5::timestamptz[], $6::smallint[], $7::text[]
) with ordinality as jobs (task_id, job_queue_id, payload, priority, run_at, max_attempts, flags, place)
order by place
returning id
