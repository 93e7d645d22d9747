-- does: Says whether this role may write to the queue only by the functions for producers: it may call them, and has no right
--   to add to the table of jobs.
-- locks: none
-- index: none: it asks the catalogue by name
-- params: $1 schema text
select coalesce(
  has_function_privilege(
    to_regprocedure(format(
      '%I.backfill_add_job(text, json, text, timestamptz, integer, text, integer, text[], text)', $1::text
    )),
    'execute'
  )
  and not has_table_privilege(to_regclass(format('%I._private_jobs', $1::text)), 'insert'),
  false
) as by_functions
