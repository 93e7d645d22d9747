-- does: Ends the transaction of a window: what it has deleted and claimed takes effect, and the other jobs are let go.
-- locks: none
-- index: none: it reads no table
-- params: none
commit
