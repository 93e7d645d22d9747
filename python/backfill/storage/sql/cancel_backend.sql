-- does: Ends what another session is doing, as its program has lost interest; the session stays.
-- locks: none
-- index: none: a function of the server
-- params: $1 pid integer
select pg_cancel_backend($1::integer)
