-- does: Sets the encoding in which the session's texts are sent and received.
-- locks: none
-- index: none: it reads no table
-- params: $1 client_encoding text
select set_config('client_encoding', $1::text, false)
