-- does: Begins the transaction of a window, which holds short jobs by the locks of their rows while they run.
-- locks: none
-- index: none: it reads no table
-- params: none
begin isolation level read committed read write
