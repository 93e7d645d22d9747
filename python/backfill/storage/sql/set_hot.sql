-- does: Prepares a session for statements that run thousands of times: one plan for all, made for their indexes whatever
--   the statistics say of a table that was empty a moment ago, and never compiled; and no waiting for a row that somebody's
--   open transaction holds, which is settled later, apart from the others.
-- locks: none
-- index: none: it reads no table
-- params: none
select
  set_config('plan_cache_mode', 'force_generic_plan', false),
  set_config('enable_seqscan', 'off', false),
  set_config('enable_bitmapscan', 'off', false),
  set_config('enable_hashjoin', 'off', false),
  set_config('enable_mergejoin', 'off', false),
  set_config('jit', 'off', false),
  set_config('lock_timeout', '200ms', false)
