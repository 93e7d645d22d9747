-- does: Has the rest of one transaction see, in each statement, what was committed before it; it must come first in it. The
--   setting ends with the transaction. `set local` would warn where no BEGIN was sent, as in a pipeline.
-- locks: none
-- index: none: it reads no table
-- params: none
set transaction_isolation to 'read committed'
