-- does: Gives a worker up whose processes are gone for certain, if its row still names those that were looked at; says who it
--   was. A row that has changed may name a child that still runs.
-- locks: its backfill_workers row (update)
-- index: backfill_workers_pkey
-- params: $1 worker text, $2 place jsonb
update :"schema".backfill_workers
set given_up_at = coalesce(given_up_at, now())
where id = $1::text
  and place = $2::jsonb
returning host, pid
