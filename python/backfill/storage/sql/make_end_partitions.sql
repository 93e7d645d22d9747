-- does: Has the partitions made that ends need which are written today and tomorrow (UTC), by how long tasks keep them; says
--   how many were made.
-- locks: backfill_ends_default (access exclusive, half a second at most to get it)
-- index: none: its work is done in a function
-- params: $1 keeps double precision[] (seconds)
select
  :"schema".backfill_make_ends(array(
    select distinct ((now() + keep * interval '1 second') at time zone 'UTC')::date + ahead
    from unnest($1::double precision[]) as keep
    cross join generate_series(0, 2) as ahead
  )) as made
