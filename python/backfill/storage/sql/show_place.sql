-- does: Has the row of a worker that was not given up say where its processes run; says whether it did.
-- locks: its backfill_workers row (update)
-- index: backfill_workers_pkey
-- params: $1 worker text, $2 place jsonb
with shown as (
  update :"schema".backfill_workers
  set place = $2::jsonb
  where id = $1::text
    and given_up_at is null
  returning 1
)
select count(*) > 0 as shown
from shown
