-- does: Gives the ends that match, newest first, from a place on. What is null filters nothing. Times are in microseconds.
-- locks: none
-- index: backfill_ends_newest
-- params: $1 task text, $2 how text, $3 queue text, $4 key text, $5 worker text, $6 ended_after timestamptz,
--   $7 ended_before timestamptz, $8 from_ended_at bigint, $9 from_id bigint, $10 wanted integer
select
  -- part: end_columns
  ,
  (extract(epoch from ends.ended_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint as place
from :"schema".backfill_ends as ends
where ends.expires_at > now()
  and isfinite(ends.ended_at)
  and ($1::text is null or ends.task_identifier = $1::text)
  and ($2::text is null or ends.how = $2::text)
  and ($3::text is null or coalesce(ends.queue_name, '') = $3::text)
  and ($4::text is null or ends.job_key = $4::text)
  and ($5::text is null or ends.worker_id = $5::text)
  and ($6::timestamptz is null or ends.ended_at >= $6::timestamptz)
  and ($7::timestamptz is null or ends.ended_at <= $7::timestamptz)
  and (
    $8::bigint is null
    or (ends.ended_at, ends.job_id) < (
      (
        timestamp '2000-01-01' + make_interval(days => ($8::bigint / 86400000000)::integer)
        + ($8::bigint % 86400000000) * interval '1 microsecond'
      ) at time zone 'UTC',
      $9::bigint
    )
  )
order by ends.ended_at desc, ends.job_id desc
limit $10::integer
