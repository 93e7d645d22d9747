with place as (
  -- Exact, unlike the product of an interval and a large number; the ends of bigint stand for infinite times.
  select case $11::bigint
    when 9223372036854775807 then timestamptz 'infinity'
    when -9223372036854775808 then timestamptz '-infinity'
    else (
      timestamp '2000-01-01' + make_interval(days => ($11::bigint / 86400000000)::integer)
      + ($11::bigint % 86400000000) * interval '1 microsecond'
    ) at time zone 'UTC'
  end as failed_at
),
matching as (
  select *
  from :"schema".backfill_dlq as entries
  where
    -- part: dead_letter_filter
    and (
      $10::bigint is not null
      or $11::bigint is null
      or (entries.failed_at, entries.id) < ((select failed_at from place), $12::bigint)
    )
  order by entries.failed_at desc, entries.id desc
  limit $10::bigint
),
entries as (
  select
    *,
    case
      when isfinite(failed_at) then (extract(epoch from failed_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint
      when failed_at > now() then 9223372036854775807
      else -9223372036854775808
    end as place
  from matching
  where ($9::text is null or strpos(lower(last_error #>> '{}'), lower($9::text)) > 0)
    and ($11::bigint is null or (failed_at, id) < ((select failed_at from place), $12::bigint))
  order by failed_at desc, id desc
  limit $13::integer
)
