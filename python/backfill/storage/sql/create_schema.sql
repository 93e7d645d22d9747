-- does: Makes the queue's schema.
-- locks: none
-- index: none: it only makes
-- params: none
create schema :"schema"
