-- Whoever awaits one of these ends is told: by their ids, or, where those are too long for that, that there are some.
told as (
  select pg_notify('backfill:ends', case when octet_length(ids) < 7900 then ids else '[]' end)
  from (select json_agg(job_id)::text as ids from kept) as all_of_them
  where ids is not null
)
