-- What attempts have said about their progress. `stepped` says whether done, total and note have changed, `saved` whether the
-- checkpoint has. Times of locks are in microseconds since 2000.
given as (
  select *
  from unnest(
    $2::bigint[], $3::bigint[], $4::integer[], $5::boolean[], $6::double precision[], $7::double precision[], $8::text[],
    $9::boolean[], $10::text[]
  ) as given (id, locked_micros, attempt, stepped, done, total, note, saved, checkpoint)
)
