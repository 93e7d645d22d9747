-- does: Ends the part of the transaction that began with the newest `savepoint`, and keeps what it did.
-- locks: none
-- index: none: it reads no table
-- params: none
release savepoint backfill
