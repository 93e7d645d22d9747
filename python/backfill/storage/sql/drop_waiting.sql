-- does: Drops the temporary table of rows that waited, once they are written: the transaction may go on, and hold another
--   bulk call.
-- locks: none of the queue's
-- index: none: it only drops the table
-- params: none
drop table pg_temp.bulk_waiting
