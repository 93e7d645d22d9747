-- does: Gives up the transaction of a window: nothing of it takes effect, and all of its jobs are let go.
-- locks: none
-- index: none: it reads no table
-- params: none
rollback
