-- does: Prepares a session, or one transaction, for statements that run thousands of times: one plan for all, made for their indexes whatever
--   the statistics say of a table that was empty a moment ago, and never compiled; and no waiting for a row that somebody's
--   open transaction holds, which is settled later, apart from the others.
-- locks: none
-- index: none: it reads no table
-- params: $1 transaction boolean
select
  set_config('plan_cache_mode', 'force_generic_plan', $1::boolean),
  set_config('enable_seqscan', 'off', $1::boolean),
  set_config('enable_bitmapscan', 'off', $1::boolean),
  set_config('enable_hashjoin', 'off', $1::boolean),
  set_config('enable_mergejoin', 'off', $1::boolean),
  set_config('jit', 'off', $1::boolean),
  set_config('lock_timeout', '200ms', $1::boolean)
