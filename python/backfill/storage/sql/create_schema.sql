-- does: Makes the queue's schema, if it is not there.
-- locks: none
-- index: none: it only makes
-- params: none
create schema if not exists :"schema"
