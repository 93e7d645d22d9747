-- does: Takes rows that wait as COPY BINARY.
-- locks: none but the new rows
-- index: none: it only inserts
-- params: none
copy pg_temp.bulk_waiting (
  batch, place, priority, run_at, max_attempts, identifier, queue_name, flags, key, payload,
  unique_for
)
from stdin (format binary)
