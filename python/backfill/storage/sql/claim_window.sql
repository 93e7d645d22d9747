-- does: Claims jobs of a window for its worker, which go on after it: as an ordinary claim does, with the time of the window's
--   look. A job's updated_at is made equal to its locked_at, so that a later difference shows that somebody else has written
--   the row.
-- locks: _private_jobs rows (update) that the transaction has locked already
-- index: jobs_pkey1
-- params: $1 worker text, $2 ids bigint[], $3 locked_ats timestamptz[]
update :"schema"._private_jobs as jobs
set attempts = jobs.attempts + 1, locked_by = $1::text, locked_at = held.locked_at, updated_at = held.locked_at
from unnest($2::bigint[], $3::timestamptz[]) as held (id, locked_at)
where jobs.id = any (array[held.id])
returning jobs.id
