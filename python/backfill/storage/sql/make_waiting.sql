-- does: Makes the temporary table in which the rows of a bulk call wait that cannot be written while the caller's stream is still
--   being read. Its keys are compared byte by byte, the order in which jobs with keys are written.
-- locks: none of the queue's
-- index: none: it only makes the table
-- params: none
create temporary table bulk_waiting (
  batch integer not null,
  place bigint not null,
  priority smallint not null,
  run_at timestamptz not null,
  max_attempts smallint not null,
  identifier text not null,
  queue_name text,
  flags text,
  key text collate "C",
  payload json not null,
  unique_for interval,
  unique (batch, key)
) on commit drop
