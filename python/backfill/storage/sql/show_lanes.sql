-- does: Has a worker's row show its lanes as they are now.
-- locks: its backfill_workers row (update)
-- index: backfill_workers_pkey
-- params: $1 worker text, $2 lanes jsonb
update :"schema".backfill_workers
set lanes = $2::jsonb
where id = $1::text
