-- does: Reads the session's timeouts, to be put back later.
-- locks: none
-- index: none: it reads no table
-- params: none
select current_setting('lock_timeout') as lock, current_setting('statement_timeout') as statement
