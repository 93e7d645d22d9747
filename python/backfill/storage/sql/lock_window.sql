-- does: Takes at the beginning of a window the lock of the table that its end will need. A change of the table, such as REINDEX or CREATE
--   TRIGGER, then waits for the window. Otherwise it could lock the table while the window is open, and wait for the
--   window, whose end would wait for it.
-- locks: _private_jobs row exclusive
-- index: none: it reads no row
-- params: none
lock table :"schema"._private_jobs in row exclusive mode
