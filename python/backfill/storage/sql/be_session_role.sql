-- does: Takes the rights that the session began with again, for the rest of the transaction: a handler may have set a role of
--   its own in it, which need not be allowed to complete jobs.
-- locks: none
-- index: none: it reads no table
-- params: none
reset role
