-- How many of the first jobs fit, where all are too large together: enough for the free slots, as many more as have room even
-- if each was as large as the largest, and one at least. Null where all fit.
fits as materialized (
  select
    case
      when sum(size) > $8::bigint
        then nullif(least(greatest($7::integer + $8::bigint / max(size), 1), count(*)), count(*))
    end as jobs
  from pick
)
