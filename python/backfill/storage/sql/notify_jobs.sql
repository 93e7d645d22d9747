-- does: Tells the workers, at the transaction's end, how many jobs were added.
-- locks: none of the queue's; at commit the server's own lock on its notification queue
-- index: none: it reads no table
-- params: $1 count integer
select pg_notify('jobs:insert', json_build_object('r', random(), 'count', $1::integer)::text)
