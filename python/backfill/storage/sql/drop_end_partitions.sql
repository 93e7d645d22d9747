-- does: Has the partitions of ends dropped whose day is over, some at a time; says how many were, and rows without one.
-- locks: backfill_ends and what is dropped (access exclusive, half a second at most to get it)
-- index: none: its work is done in a function
-- params: none
select :"schema".backfill_drop_ends() as dropped
