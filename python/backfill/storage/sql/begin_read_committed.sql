-- does: Begins a transaction in which each statement sees what was committed before it, whatever the default of the session is.
-- locks: none
-- index: none: it reads no table
-- params: none
begin isolation level read committed
