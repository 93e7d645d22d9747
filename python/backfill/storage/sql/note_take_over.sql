-- does: Notes that add_job and add_jobs are ours again, but that others may still be in another program's.
-- locks: none but the function's comment
-- index: none: it reads no table
-- params: none
comment on function :"schema".add_job(text, json, text, timestamptz, integer, text, integer, text[], text)
  is 'backfill: unfinished'
