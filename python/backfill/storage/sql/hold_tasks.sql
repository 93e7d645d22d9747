-- does: Finds the ids of tasks by their identifiers, and keeps the rows from being deleted before the transaction's end.
-- locks: _private_tasks rows for key share
-- index: tasks_identifier_key
-- params: $1 identifiers text[]
select id, identifier
from :"schema"._private_tasks
where identifier = any ($1::text[])
for key share
