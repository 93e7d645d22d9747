  -- A number that is another one after each change of what operators say. The newest version would not do, since versions
  -- may be committed in another order than they were drawn in.
  (
    select coalesce(hashtextextended(string_agg(control.version::text, ',' order by control.version), 0), 0)
    from :"schema".backfill_control as control
  )
