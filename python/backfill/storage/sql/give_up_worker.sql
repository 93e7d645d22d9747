-- does: Gives a worker up whose heartbeat is still the one that was seen; says who it was. One that has beaten since is alive.
-- locks: its backfill_workers row (update)
-- index: backfill_workers_pkey
-- params: $1 worker text, $2 heartbeat bigint (microseconds)
update :"schema".backfill_workers
set given_up_at = coalesce(given_up_at, now())
where id = $1::text
  and (given_up_at is not null or (extract(epoch from heartbeat_at) * 1000000)::bigint = $2::bigint)
returning host, pid
